"""The suite's mechanisms on natural models and published tasks, in one table."""
