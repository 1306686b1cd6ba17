"""Decoding whose every step stays on the device: what is in flight has fixed shapes, and is looked at every few steps.

- `pages.py`: which row of the batch holds which page of the memory for its own tokens; numbers alone.
- `paged_cache.py`: prompts once a question, own tokens in pages, and the attention over both.
- `rows.py`: the rows in flight as tensors on the device, and one step of all of them.
- `fused.py`: chains of small operations of the model, compiled to one kernel each, where that is asked for.
- `captured.py`: that step as one CUDA graph.
- `schedule.py`: questions come in, are looked at, and make room for those that wait.
- `fit.py`: which models it does, found by trial.

The engine that stands on it: `elicit.decoding.engines.graph`.
"""
