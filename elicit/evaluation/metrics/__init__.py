"""What is computed of a run's outcomes, and how numbers are written."""
