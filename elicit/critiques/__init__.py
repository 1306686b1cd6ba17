"""Critiques: solutions that a model wrote, and what a critic says of them."""
