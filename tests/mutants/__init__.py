"""Silent faults, put into the suite one at a time: a test must fail for each."""
