"""What an auditor gets: a signed certificate, and what it can be held against."""
