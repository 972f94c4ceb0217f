"""The Harbour Store: a made-up shop whose truth is known. Everything here is synthetic."""
