"""The door: REST from the protos, gRPC, event protocols, authentication. Owns no domain data."""
