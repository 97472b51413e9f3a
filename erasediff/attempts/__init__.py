"""Attempts at requests: their records, their folders, and the batches they form."""
