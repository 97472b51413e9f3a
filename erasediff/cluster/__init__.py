"""The one adapter over the Kubernetes API, for everything here that speaks to a cluster."""
