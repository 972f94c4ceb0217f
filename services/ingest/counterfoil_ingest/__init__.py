"""The data plane: the log, validation, quarantine, imports, the lake and SQL."""
