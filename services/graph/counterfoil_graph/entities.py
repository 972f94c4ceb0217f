"""Graph: entities."""
