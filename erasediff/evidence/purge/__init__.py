"""The purge: list, delete, and ask anew whether anything is left, store by store."""
