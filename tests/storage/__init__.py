"""Tests of storage, on local disk and on S3 alike."""
