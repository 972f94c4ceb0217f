"""Graph: store."""
