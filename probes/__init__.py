"""Reading a model: token statistics, calibration, figures that open offline.

`probes` knows PyTorch tensors, arrays and data frames. It knows nothing of tasks, methods or runs.
"""
