"""Governance: workspaces, principals, keys and the ledger of receipts."""
