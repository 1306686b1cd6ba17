"""The baselines that every mechanism is held against."""
