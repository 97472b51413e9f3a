"""Evidence for auditors: requests, certificates, signatures, purges and revocations."""
