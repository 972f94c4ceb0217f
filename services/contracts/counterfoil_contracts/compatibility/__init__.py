"""Whether one JSON Schema accepts all that another accepts: proven, disproven by a record, or neither."""
