"""What `counterfoil doctor` looks at, and what it puts into a support bundle."""
