"""Kubeflow components: one folder each, thin over the library, with no algorithm of their own."""
