"""The twenty claims that the suite exists to test, a folder each; `python -m experiments.claims` lists them."""
