"""The purge: list, delete, and list again, store by store."""
