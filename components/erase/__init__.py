"""The component ``erase``."""
