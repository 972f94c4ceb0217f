"""Graph: errors."""
