"""The Open Data Contract Standard: reading documents, checking them, compiling them to JSON Schema."""
