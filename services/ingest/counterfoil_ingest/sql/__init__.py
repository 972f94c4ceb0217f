"""The SQL engine: SQLAlchemy Core for business tables, the driver's own connections for the log."""
