"""What shows afterwards that a request was handled: the ledger of requests and their clocks."""
