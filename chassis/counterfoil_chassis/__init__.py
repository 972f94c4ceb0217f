"""The microservice chassis: serve, call, errors, identity, settings, telemetry, storage, watch. No domain noun."""
