"""Analyses of organisms: their card, and behaviours found in their activations."""
