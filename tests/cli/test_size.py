"""The main job in two sizes: which is taken, what is said of it, and that a resumed run keeps its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from transformers.cache_utils import DynamicCache

from elicit.cli import size as sizes
from elicit.decoding import pace
from elicit.decoding.pace import Pace, measure_pace
from elicit.methods import options_of
from elicit.models import Model, memory
from elicit.models.memory import cache_bytes
from probes.clock import cache_argument
from probes.errors import UserError

GIVEN: dict[str, Any] = {
    "method": "sae-steer", "size": "auto", "seeds": "", "out": None, "fresh": False, "batch_rows": None,
}  # fmt: skip
FAST = sizes.PATIENCE / sizes.STEPS["full"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of a given pace, and what was asked of it."""
    threads = torch.get_num_threads()
    yield lambda seconds: monkeypatch.setattr(pace, "measure_pace", lambda model, asked: Pace(asked[-1], seconds, 0.5))
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("seconds", "name"), [(FAST, "full"), (1.01 * FAST, "short")])
def test_a_slow_machine_gets_the_short_size(seconds: float, name: str, machine: Any, tiny: Model, here: Path) -> None:
    machine(seconds)
    chosen = sizes.choose(GIVEN, tiny)
    assert chosen["name"] == name and chosen["threads"] == torch.get_num_threads() == 1
    assert chosen["estimate"] == pytest.approx(sizes.STEPS[name] * seconds)
    assert f"size {name} on 1 thread, of whose time other work leaves 50%: about 0:0" in sizes.told(chosen)
    assert sizes.choose({**GIVEN, "size": "full"}, tiny)["name"] == "full"


def test_a_run_that_was_begun_keeps_its_size(machine: Any, tiny: Model, here: Path) -> None:
    machine(1.01 * FAST)
    chosen = sizes.choose(GIVEN, tiny)
    folder = here / "runs" / "sae-steer-organism-x"
    folder.mkdir(parents=True)
    config = {"schema": 1, "identity": {}, "arms": {}, "execution": {"size": chosen}}
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    other = here / "runs" / "sae-steer-organism-y"
    other.mkdir()
    (other / "config.toml").write_text("of another program", encoding="utf-8")
    machine(FAST)
    assert sizes.choose(GIVEN, tiny) == chosen
    assert sizes.choose({**GIVEN, "out": folder}, tiny) == chosen  # where a folder is given it is asked
    assert sizes.choose({**GIVEN, "out": here / "new"}, tiny)["name"] == "full"
    assert sizes.choose({**GIVEN, "fresh": True}, tiny)["name"] == "full"
    assert sizes.choose({**GIVEN, "batch_rows": 8}, tiny)["name"] == "full"  # another command


def test_caches_without_room_are_refused_with_what_would_fit(
    machine: Any, tiny: Model, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(FAST)
    short = cache_bytes(tiny.lm, 320, sizes.PROMPT + 128)
    monkeypatch.setattr(memory, "free_bytes", lambda device: short)
    assert sizes.choose(GIVEN, tiny)["name"] == "short"
    with pytest.raises(UserError, match="--batch-rows 240"):  # (64 + 128) / (64 + 192) of 320
        sizes.choose({**GIVEN, "size": "full"}, tiny)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    with pytest.raises(UserError, match=r"are free on cpu; give --batch-rows 1$"):
        sizes.choose(GIVEN, tiny)


def test_sizes_set_options_that_the_method_has() -> None:
    for one in sizes.SIZES.values():
        assert one["options"].keys() <= options_of(sizes.METHOD).keys()


def test_the_cache_is_counted_as_it_is_kept(tiny: Model) -> None:
    kept = DynamicCache()
    tiny.lm(torch.ones(3, 7, dtype=torch.long), **{cache_argument(tiny.lm): kept})
    assert cache_bytes(tiny.lm, 3, 7) == sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)


def test_a_pace_is_that_of_the_fastest_and_leaves_the_threads_alone(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    found = measure_pace(tiny)
    assert found.threads == before and found.seconds > 0 and 0 < found.share <= 1
    monkeypatch.setattr(pace, "_steps", lambda model, rows: (1.0 / torch.get_num_threads(), 1.0))
    assert measure_pace(tiny, (2, 1)) == Pace(2, 0.5, 0.5)
    monkeypatch.setattr(pace, "_steps", lambda model, rows: (1.0 * torch.get_num_threads(), 1.0))
    assert measure_pace(tiny, (2, 1)) == Pace(1, 1.0, 1.0)
    assert torch.get_num_threads() == before


def test_a_probe_that_is_interrupted_leaves_nothing(tiny: Model, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: Model, rows: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pace, "_steps", interrupted)
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        sizes.choose(GIVEN, tiny)
    assert torch.get_num_threads() == before and not list(here.iterdir())
