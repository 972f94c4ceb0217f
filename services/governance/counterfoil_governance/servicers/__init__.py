"""Governance's RPC families, one file each."""
