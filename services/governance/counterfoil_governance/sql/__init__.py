"""Governance's stores in SQL."""
