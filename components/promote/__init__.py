"""The component ``promote``."""
