"""Why critiques of one problem stop half-way to the ceiling, and what another place for them changes."""
