"""Analyses of chains of thought: when the answer is decided, and whether the text decides it."""
