"""The component ``version_forget_set``."""
