"""What `k8s/` says is what Kubernetes, KubeRay, Kueue and raycl understand."""
