"""The component ``evaluate``."""
