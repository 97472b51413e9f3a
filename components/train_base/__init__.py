"""The component ``train_base``."""
