"""Lineage: what OpenLineage events tell, kept as edges in two times, and walked."""
