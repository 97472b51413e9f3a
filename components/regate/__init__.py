"""The component ``regate``."""
