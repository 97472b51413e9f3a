"""Evidence that an auditor can use: what was asked, what was measured, what was deleted, and who signed for it."""
