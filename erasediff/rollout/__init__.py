"""Roll an exported model out on Kubernetes as a canary, and roll back if it fails."""
