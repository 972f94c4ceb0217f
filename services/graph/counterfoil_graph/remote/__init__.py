"""The services to the right: what this one asks of them."""
