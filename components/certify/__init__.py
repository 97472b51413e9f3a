"""The component ``certify``."""
