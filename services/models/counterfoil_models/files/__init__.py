"""Artifacts as content-addressed files."""
