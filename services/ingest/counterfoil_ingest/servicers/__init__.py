"""One file per RPC family."""
