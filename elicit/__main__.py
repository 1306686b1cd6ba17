"""`python -m elicit`."""

from elicit.cli.app import main

main()
