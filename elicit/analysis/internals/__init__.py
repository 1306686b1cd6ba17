"""Analyses of activations and weights."""
