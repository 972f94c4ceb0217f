"""Mappings of files that come with the platform."""
