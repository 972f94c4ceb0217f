"""The stores of contracts in SQL."""
