"""A model that is spread over devices does what it does on one; what a CPU can show is layers held on the disk."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

import elicit
from elicit.decoding import StopRule, decode
from elicit.decoding.decoders import Branching
from elicit.models import Model, load_model
from elicit.tasks import load_task
from probes.capture import capture
from probes.errors import UserError
from probes.sites import STREAM, Site, check_site
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, ProjectOut, When

IDS = [[5, 9, 3, 7, 40, 41], [6, 8, 11]]
MAP = {
    "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "cpu",
    "model.layers.3": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk",
}  # fmt: skip


@pytest.fixture(scope="module")
def undivided(tiny_folder: Path) -> Model:
    return load_model(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def divided(tiny_folder: Path) -> Model:
    return load_model(str(tiny_folder), dtype="float32", device_map=MAP)


def direction(site: Site) -> Direction:
    return Direction(torch.randn(32, generator=torch.Generator().manual_seed(site.layer)), site)


def plan() -> Plan:
    steered = Intervention(Add(direction(Site(1))), 2.0, when=When.every_step())
    return (steered, Intervention(ProjectOut(direction(Site(3))), when=When.everywhere()))


def test_layers_on_the_disk_are_there_and_are_captured_alike(undivided: Model, divided: Model) -> None:
    assert {p.device.type for p in divided.lm.model.layers[1].parameters()} == {"meta"}  # type: ignore[union-attr]
    sites = [Site(layer, point) for layer in range(4) for point in STREAM] + [Site(1, "pattern")]
    for site in sites:
        check_site(divided.lm, site)
    ours, theirs = (capture(model.lm, IDS, sites) for model in (divided, undivided))
    assert ours is not None and theirs is not None
    for site in sites[:-1]:
        assert torch.equal(ours.values[site], theirs.values[site])
    for key, pattern in theirs.patterns[sites[-1]].items():
        assert torch.equal(ours.patterns[sites[-1]][key], pattern)


def test_steering_and_branching_are_alike(undivided: Model, divided: Model) -> None:
    found = []
    for model in (divided, undivided):
        with attached(model.lm, [plan()]) as session:
            branches = decode(
                model.lm, IDS, Branching(3).policy(["", ""], 64), max_new_tokens=8, stop=StopRule(frozenset()),
                steering=session,
            )  # fmt: skip
            delivered = session.editor.delivery()
        found.append((branches, delivered))
    (ours, moved), (theirs, moved_there) = found
    assert moved == moved_there and moved.positions
    for mine, other in zip(chain(*ours), chain(*theirs), strict=True):
        assert mine.tokens.tolist() == other.tokens.tolist() and mine.logprob.tolist() == other.logprob.tolist()


def test_a_run_is_the_same(undivided: Model, divided: Model, tmp_path: Path) -> None:
    task = load_task("chain-sum", limit=3)
    texts = []
    for n, model in enumerate((divided, undivided)):
        handle = elicit.methods.cot_decoding.fit(model, task.fit, k=3, max_new_tokens=8)
        run = elicit.evaluate(handle, task.test, out=tmp_path / str(n))
        texts.append({key: [t.tokens for t in traces] for key, traces in run.store.traces()[handle.method].items()})
    assert texts[0] == texts[1]


def test_an_embedding_on_the_disk_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"the embedding of .* give it a device"):
        load_model(str(tiny_folder), dtype="float32", device_map={**MAP, "model.embed_tokens": "disk"})
