"""Event protocols: one file each, found by the entry point group `counterfoil.routes`."""
