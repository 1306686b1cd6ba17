"""One folder a claim, and the benchmarks. Experiments depend on the library, never the other way."""
