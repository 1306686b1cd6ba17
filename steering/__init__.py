"""Writing to a model: directions, gates and interventions stand here, above `probes` and below `elicit`."""
