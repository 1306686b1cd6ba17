"""Organisms: small models whose latent skill is known, because it was put there."""
