"""Schema subjects: what may be registered under them, found in them, and deleted from them."""
