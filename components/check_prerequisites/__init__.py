"""The component ``check_prerequisites``."""
