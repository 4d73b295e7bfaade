"""Runs of jobs on Kubernetes, where KubeRay carries them."""
