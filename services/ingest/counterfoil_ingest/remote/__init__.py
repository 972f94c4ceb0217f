"""What ingest asks other services."""
