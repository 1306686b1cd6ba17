"""Copies that are under way while forwards go on, and shards that several threads write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from elicit.decoding import Branching, StopRule, decode
from elicit.models import Model
from probes.activations import Activations, Shards
from probes.capture import capture, recording
from probes.finite import NotFiniteError
from probes.sites import Site
from probes.transfer import ToHost
from tests.support.tiny import VOCAB, tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3]]
SITES = [Site(0, "resid_pre"), Site(2, "attn_out"), Site(3)]


class Late(ToHost):
    """As on a GPU: a copy has its numbers when it was waited for, and nonsense before."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.ahead = 2
        self.under_way: list[tuple[Tensor, Tensor]] = []

    def copy(self, x: Tensor) -> Tensor:
        out = torch.full_like(x, -7)
        self.under_way.append((out, x))
        return out

    def marked(self) -> Callable[[], None]:
        asked, self.under_way = self.under_way, []

        @torch.inference_mode()
        def wait() -> None:
            for out, x in asked:
                out.copy_(x)

        return wait


@pytest.mark.parametrize("steps", [(None, None), (-1, None), (0, 3)])
def test_copies_that_come_late_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[int | None, int | None]
) -> None:
    lm = tiny_model("llama")
    texts, lengths = PROMPTS * 4, [2, 7, 6, 1] * 4

    def captured(name: str) -> Activations:
        found = capture(lm, texts, SITES, lengths=lengths, steps=steps, batch_tokens=12)
        capture(lm, texts, SITES, lengths=lengths, steps=steps, batch_tokens=12, out=tmp_path / name)
        assert found is not None
        return found

    def generated() -> Activations:
        policy = Branching(2).policy([""] * 4, VOCAB)
        with recording(lm, SITES, steps=steps) as recorder:
            decode(lm, PROMPTS, policy, max_new_tokens=5, stop=StopRule(frozenset()), recorder=recorder)
        return recorder.activations()

    at_once = captured("at once"), generated()
    monkeypatch.setattr("probes.capture.ToHost", Late)
    late = captured("late"), generated()
    for one, other in zip(at_once, late, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("row", "branch", "step"))
        assert all(torch.equal(one.values[site], other.values[site]) for site in SITES)
    files = sorted(path.name for path in (tmp_path / "late").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "at once").iterdir())
    assert all((tmp_path / "late" / f).read_bytes() == (tmp_path / "at once" / f).read_bytes() for f in files)


def test_what_is_not_finite_is_met_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Model) -> None:
    monkeypatch.setattr("probes.capture.ToHost", Late)
    lm = tiny_model("llama")
    handle = lm.get_submodule("model.layers.1").register_forward_hook(lambda *_: torch.full((1, 3, 32), float("nan")))
    try:
        with pytest.raises(NotFiniteError, match=r"activations at 3\.resid_post"):
            capture(lm, [[5, 9, 3]], [Site(0), Site(3)], out=tmp_path / "acts")
        with pytest.raises(NotFiniteError, match=r"activations at 3\.resid_post"), recording(lm, [Site(3)]):
            lm(input_ids=torch.tensor([[5, 9, 3]]))
    finally:
        handle.remove()
    assert not (tmp_path / "acts" / "activations.json").exists()


def test_a_step_of_decoding_asks_the_device_for_no_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """All positions of a step are kept, or none; so are those of prompts without padding."""
    lm = tiny_model("llama")

    def watched(step: int, rows: int) -> None:
        monkeypatch.setattr(Tensor, "nonzero", lambda _: pytest.fail("a look at the device"))

    for steps, kept in (((None, None), 6 + 4 * 5), ((2, 4), 4 * 2)):
        if steps == (None, None):
            watched(0, 0)
        policy = Branching(2).policy([""] * 2, VOCAB)
        with recording(lm, SITES, steps=steps) as recorder:
            decode(
                lm, [[5, 9, 3], [3, 4, 5]], policy, max_new_tokens=6, stop=StopRule(frozenset()), recorder=recorder,
                on_step=watched,
            )  # fmt: skip
        monkeypatch.undo()
        assert len(recorder.activations()) == kept


def columns(number: int, rows: int = 50) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(number)
    index = {name: torch.arange(rows) + number for name in ("row", "branch", "step")}
    return {**index, "0.resid_post": torch.randn(rows, 8, generator=draw)}


def test_several_threads_write_the_files_of_one(tmp_path: Path) -> None:
    for writers in (1, 3):
        sink = Shards(tmp_path / str(writers), shard_bytes=5000, writers=writers)
        for number in range(11):
            sink.put(columns(number))
        sink.close()
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == ["00000.safetensors", "00001.safetensors", "00002.safetensors", "00003.safetensors",
                     "00004.safetensors", "00005.safetensors", "activations.json"]  # fmt: skip
    assert all((tmp_path / "1" / f).read_bytes() == (tmp_path / "3" / f).read_bytes() for f in files)


def test_a_capture_waits_for_threads_that_are_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, written = threading.Semaphore(0), []

    def slow(self: Shards, name: str, held: object) -> None:
        go.acquire()
        written.append(name)

    monkeypatch.setattr(Shards, "_write", slow)
    sink = Shards(tmp_path / "acts", shard_bytes=1, writers=2)
    thread = threading.Thread(target=lambda: [sink.put(columns(n)) for n in range(8)])
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not written
    assert len(sink.names) <= 4  # two that are written, one that waits, and one that is handed over
    for _ in range(8):
        go.release()
    thread.join()
    sink.close()
    assert sorted(written) == sink.names and len(written) == 8


def test_the_error_of_a_thread_ends_the_capture_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Shards._write

    def full(self: Shards, name: str, held: list[dict[str, Tensor]]) -> None:
        if name == "00001.safetensors":
            raise OSError(28, "No space left on device", name)
        write(self, name, held)

    monkeypatch.setattr(Shards, "_write", full)
    monkeypatch.setattr("probes.activations.SHARD_BYTES", 1)
    sink = Shards(tmp_path / "acts", shard_bytes=1, writers=3)
    with pytest.raises(OSError, match=r"No space left on device: '00001.safetensors'"):  # noqa: PT012  whichever call
        for number in range(6):
            sink.put(columns(number))
        sink.close()
    sink.abandon()
    assert not (tmp_path / "acts" / "activations.json").exists()
