"""Commands that are killed at random moments, and end where an undisturbed one does."""
