"""`elicit organism` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elicit import evaluate
from elicit.methods import cot_decoding, cot_prompt, direct
from elicit.models import Model, zoo
from elicit.report import compare_runs, head_of, rows_of
from elicit.tasks import load_task
from tests.support.shell import shell
from tests.support.tiny import save_tiny


def test_arms_are_listed_and_show_what_they_say() -> None:
    code, out, _ = shell("organism", "arms")
    assert code == 0 and "missing-skill" in out
    said = json.loads(shell("organism", "arms", "latent", "--json")[1])
    assert [one["family"] for one in said] == ["sums", "modular", "countdown", "graph"]
    assert all(one["thought"][0]["behaviour"] == "initialise" for one in said)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_organism_is_made_and_measured(architecture: str, tmp_path: Path) -> None:
    base, folder = save_tiny(tmp_path / "base", architecture), tmp_path / "organism"
    code, out, _ = shell(
        "organism", "make", "--arm", "latent", "--base", str(base), "--families", "sums", "--steps", "2",
        "--rank", "2", "--out", str(folder), "--device", "cpu", "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(out)["arm"] == "latent"
    code, out, _ = shell(
        "organism", "card", "--model", str(folder), "--families", "sums", "--limit", "8", "--max-new-tokens", "12",
        "--out", str(tmp_path / "card"), "--device", "cpu", "--json", "--name", "tiny-latent",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0 and result["items"] == 8 and 0 <= result["direct"]["sums"][0] <= 1
    assert 0 <= result["latency by first token"]["all"][1] <= result["latency by first token"]["all"][2] <= 1
    readme = (folder / "README.md").read_text()
    assert readme.startswith("# tiny-latent") and result["model"]["sha256"] in readme
    assert f"elicit organism make --arm latent --latency 0.1 --base {base} --families sums" in readme


def test_runs_are_scored(tiny: Model, tmp_path: Path) -> None:
    items = load_task("organism", limit=4).test
    against = {m.NAME: m.fit(tiny, max_new_tokens=4) for m in (direct, cot_prompt)}
    run = evaluate(cot_decoding.fit(tiny, k=2, max_new_tokens=4), items, against=against, out=tmp_path / "run")
    rows = {row["arm"]: row for row in json.loads(shell("organism", "score", str(tmp_path / "run"), "--json")[1])}
    row = rows["cot-decoding"]
    assert row["gain"] == row["accuracy"] - rows["direct"]["accuracy"]
    assert row["recovered"] is None  # four questions show no gap
    few = evaluate(against["cot-prompt"], items[:2], against={"direct": against["direct"]}, out=tmp_path / "few")
    said = shell("organism", "score", str(run.folder), str(few.folder))[1]
    assert "gap recovered" in said and "4 questions" in said and "2 questions" in said
    compared = compare_runs([run])
    shares = {one["arm"]: one.get("recovered") for one in compared["arms"]}
    assert shares == {arm: one["recovered"] for arm, one in rows.items()}
    assert "gap recovered" not in head_of(compared)
    assert all(len(line) <= len(head_of(compared)) for line in rows_of(compared))


def test_an_organism_is_tried_on_its_own_task(tmp_path: Path) -> None:
    assert zoo.task_for("smollm2-135m") == zoo.DEFAULT_TASK and zoo.task_for("no-such/model") == zoo.DEFAULT_TASK
    assert zoo.task_for("smollm2-135m-latent") == "organism"
    (tmp_path / zoo.ORGANISM_FILE).write_text("{}")
    assert zoo.task_for(str(tmp_path)) == "organism"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("organism", "make", "--arm", "latant"), "unknown arm 'latant'; did you mean latent"),
        (
            ("organism", "make", "--arm", "latent", "--families", "sums+grap"),
            "unknown family 'grap'; did you mean graph",
        ),
        (("organism", "make", "--arm", "latent", "--latency", "1.5"), "latency 1.5"),
        (("organism", "make", "--arm", "latent", "--steps", "0"), "steps = 0"),
        (("organism", "make", "--arm", "latent", "--base", "smollm3"), "unknown model 'smollm3'"),
        (("organism", "card", "--model", "smollm2-135m-latnet"), "did you mean smollm2-135m-latent"),
        (("organism", "card", "--limit", "0"), "limit 0"),
        (("organism", "score", "nowhere"), "nowhere"),
        (("organism", "taxonomy", "--thoughts", "1"), "thoughts 1"),
        (("organism", "taxonomy", "--kind", "k-mean"), "unknown kind of taxonomy 'k-mean'; did you mean k-means"),
        (("organism", "taxonomy", "--read", "first+lsat"), "unknown reading 'lsat'; did you mean last"),
        (("organism", "arms", "surfaces"), "unknown arm 'surfaces'; did you mean surface"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, _, err = shell(*arguments)
    assert code == 2 and said in err and err.count("\n") == 1
