"""Bringing an exported model up on Kubernetes beside the one that serves, and going back when it does not come up."""
