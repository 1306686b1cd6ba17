"""Reading a model: token statistics, calibration, figures that open offline.

`probes` knows PyTorch tensors, arrays and data frames. It knows nothing of tasks, methods or runs.
"""

PART_OF = "elicit"  # the name is a common one: `elicit` looks whether this is the package that it came with
