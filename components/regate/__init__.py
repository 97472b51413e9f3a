"""The component ``purge``."""
