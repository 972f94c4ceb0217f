"""Contract documents checked against what is in force, and told in the formats that pipelines read."""
