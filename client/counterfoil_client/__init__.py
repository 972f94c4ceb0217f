"""Typed Python client of Counterfoil."""
