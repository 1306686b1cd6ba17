"""Engines: each carries out what `elicit.decoding.engine` hands it, in its own way."""
