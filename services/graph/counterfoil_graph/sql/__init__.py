"""The SQL engine of the stores."""
