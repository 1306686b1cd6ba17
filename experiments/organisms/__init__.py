"""Scores on organisms."""
