"""Contracts: ODCS documents, versioned, compiled to the JSON Schema that records are validated by."""
