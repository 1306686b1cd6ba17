"""Writing to a model: directions, gates and interventions stand here, above `probes` and below `elicit`."""

PART_OF = "elicit"  # the name is a common one: `elicit` looks whether this is the package that it came with
