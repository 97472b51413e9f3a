"""The one adapter over the Kubernetes API."""
