"""vLLM needs an older `transformers` than `elicit` does, so these tests run in an environment of their own."""

from __future__ import annotations

import importlib.util
import os

import pytest

collect_ignore: list[str] = []
if importlib.util.find_spec("vllm") is None:
    # `pytest` in the project's own environment has no vLLM and passes over them; `make test-vllm` runs them.
    collect_ignore += ["test_vllm.py", "test_engine.py"]
else:
    # Read when vLLM is imported. Two GB of cache are plenty for texts of a few dozen tokens.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ranks", type=int, default=1, help="processes that the engine spreads the model over")


def pytest_configure(config: pytest.Config) -> None:
    ranks = config.getoption("--ranks")
    if ranks > 1:  # as many cores as ranks are asked for, unless one is named for each
        cores = sorted(os.sched_getaffinity(0))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(str(cores[n % len(cores)]) for n in range(ranks)))
