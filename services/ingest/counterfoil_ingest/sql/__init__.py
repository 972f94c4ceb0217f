"""The SQL engine: SQLAlchemy Core for business tables, inline sqlite3 for the log."""
