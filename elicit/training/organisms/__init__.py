"""Organisms: training variants whose latent skill is known."""
