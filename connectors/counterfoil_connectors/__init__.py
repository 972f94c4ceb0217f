"""What pulls from other systems into Counterfoil."""
