"""What an earlier release kept in the data folder."""
