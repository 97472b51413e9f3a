"""Attempts at requests: what one is, where it lies, and which are erased together."""
