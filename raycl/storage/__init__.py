"""The one way to storage, local disk and S3 alike: versioned folders, the manifest last, and the release pointer."""
