"""Event protocols: each turns the bytes of one request into candidates (entry points `counterfoil.protocols`)."""
