"""The command line of Counterfoil: start everything, import, ask, check."""
