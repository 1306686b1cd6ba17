"""`python -m elicit`."""

from elicit.cli import main

main()
