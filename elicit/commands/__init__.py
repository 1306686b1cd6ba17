"""The commands that stand in files of their own; `elicit.cli` puts them together."""
