"""Contracts that come with the platform."""
