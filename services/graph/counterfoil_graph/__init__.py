"""The graph service: persons, the knowledge graph, journeys."""
