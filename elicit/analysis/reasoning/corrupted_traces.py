"""Right answers from wrong thoughts: accuracy and the validity of the thought apart (arXiv 2505.13775).

Models that are trained on swapped or empty thoughts may answer as well as those trained on right ones. Read off runs
of such models on the same items (the organisms' arms `latent`, `shuffled`, `surface`): of each arm how often the answer
is right and how often the thought is valid, and whether the two go together.

A thought is valid where every sentence may follow what was said before, no equation is wrong, and the steps come to the
answer that is given (`elicit.tasks.organism.verifier`); in other texts, where it has equations and all of them hold. A
thought
of empty phrases breaks no rule: so each is judged a second time on another question of its family, and what is valid
there too is valid of anything. That right answers have the valid thoughts is held against validity exchanged among the
questions of a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from elicit.analysis.base import Analysis, shown
from elicit.evaluation.run.arms import arms_of, check_together, folder_names, questions
from elicit.evaluation.run.run import Run
from elicit.tasks.answers import find_answer
from elicit.tasks.base import Item, Items
from elicit.tasks.equations import equations
from elicit.tasks.organism.solver import facts_of, family_of
from elicit.tasks.organism.verifier import walk
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.statistics import Interval, against_null, bootstrap_mean, holm, paired, proportion_interval

NAME = "corrupted-traces"
SUMMARY = "are right answers reached by valid reasoning? accuracy and validity apart, beside traces of other questions"
PAPER = "2505.13775"
PERMUTATIONS = 2000


def valid(items: Items, item: Item, text: str) -> bool | None:
    """Whether a thought is valid on a question, its answer being what it says at its end.

    None where there is nothing to judge: an answer alone, a sentence that cannot be read, a text without equations.
    """
    found = find_answer(text, items.task.kind_of(item))
    answer = found.text if found else None
    if answer is None or text.strip().rstrip(".").strip() == answer:
        return None
    if family_of(item) is not None:
        walked = walk(text, facts_of(item), answer, lambda said: items.task.grader.grade(item, said).correct)
        if walked.wrong is not None:
            return False
        if not walked.lost:
            return walked.ended
    held = equations(text)
    if any(not one.right for one in held):
        return False
    return None if family_of(item) is not None or not held else True


@dataclass(frozen=True, eq=False)
class Judged:
    """Of each question: whether the answer is right, its thought valid, and valid on another question.

    `readable` says whether there was a thought to judge; the two others are False where there was none.
    """

    right: Bool[np.ndarray, " items"]
    valid: Bool[np.ndarray, " items"]
    elsewhere: Bool[np.ndarray, " items"]
    readable: Bool[np.ndarray, " items"]


def judge(items: Items, texts: Sequence[str], right: Bool[np.ndarray, " items"]) -> Judged:
    """Judge each thought on its own question and on the next one of its family; where that has no other, nothing speaks
    against its being valid of anything: it is valid there if it is on its own."""
    families = [family_of(item) or "" for item in items]
    own = [valid(items, item, text) for item, text in zip(items, texts, strict=True)]
    elsewhere = []
    for n, text in enumerate(texts):
        others = [m for m in range(len(items)) if families[m] == families[n] and m != n]
        after = next((m for m in others if m > n), others[0] if others else None)
        elsewhere.append(own[n] if after is None else valid(items, items[after], text))
    return Judged(
        right, np.array([one is True for one in own]), np.array([one is True for one in elsewhere]),
        np.array([one is not None for one in own]),
    )  # fmt: skip


def together(found: Judged, families: Sequence[str], *, seed: int = 0) -> dict[str, float]:
    """P(valid | right) − P(valid | wrong) among thoughts that can be judged, and its null: validity exchanged within
    each family; NaN where all are right or all wrong."""
    kept = found.readable
    right, ok = found.right[kept], found.valid[kept].astype(float)
    if not len(right) or right.all() or not right.any():
        return dict.fromkeys(("gap", "null low", "null high", "p"), float("nan"))
    rng = np.random.default_rng(seed)
    family = np.unique(np.asarray(families)[kept], return_inverse=True)[1]

    def gap(values: Float[np.ndarray, " items"]) -> float:
        return float(values[right].mean() - values[~right].mean())

    null = []
    for _ in range(PERMUTATIONS):
        drawn = ok.copy()
        for one in range(family.max() + 1):
            here = np.flatnonzero(family == one)
            drawn[here] = ok[rng.permutation(here)]
        null.append(gap(drawn))
    value = gap(ok)
    beside = against_null(value, np.array(null))
    return {"gap": value, "null low": beside.interval.low, "null high": beside.interval.high, "p": beside.p}


def analyse(runs: Sequence[Run], *, limit: int = 0, seed: int = 0) -> Analysis:
    """Accuracy and validity of every arm of every run, and each run against the first, arm by arm.

    Args:
        runs: of different models (as trained on right, shuffled and empty thoughts) on the same items.
        limit: of the items; 0 for all.
        seed: of bootstrap and permutations.

    Raises:
        UserError: no run, runs of different tasks or without common items, no thought that can be judged.
    """
    check_together(runs, model_by=())
    arms = [(run, arm) for run in runs for arm in arms_of([run])]
    asked = questions([arm for _, arm in arms], limit)
    items = Items(runs[0].items.task, tuple(asked))
    families = [family_of(item) or "" for item in items]
    ids = [item.id for item in items]
    found: dict[tuple[int, str], Judged] = {}
    names: dict[tuple[int, str], str] = {}
    folders = folder_names(runs)
    for run, arm in arms:
        key = (runs.index(run), arm.key)
        found[key] = judge(items, [trace.text for trace in arm.chosen(ids)], arm.right(ids))
        names[key] = f"{run.metrics['model']['name'].rsplit('/', 1)[-1]}: {arm.key}"
        if list(names.values()).count(names[key]) > 1:
            names[key] += f" ({folders[run]})"
    if not any(one.readable.any() for one in found.values()):
        raise UserError(
            f"no arm has a thought that can be judged ({', '.join(names.values())}); give runs of the organisms' task "
            "with arms that think, like cot-prompt"
        )
    rows = {key: _judged(one, families, seed) for key, one in found.items()}
    against = _against(found, seed)
    table = [_row(names[key], row, against.get(key, {})) for key, row in rows.items()]
    notes = [
        "Right and valid are fractions of all questions; 95% intervals by question. Beyond elsewhere is what is left "
        "of validity when the same thought is judged on another question: a thought that is valid anywhere says "
        "nothing.",
        "Differences are to the same arm of the first run, paired by question, p by McNemar with Holm over all. Where "
        "validity falls and accuracy does not, answers do not need valid thoughts.",
        "A thought that breaks no rule is not thereby what the answer came from (see faithfulness).",
    ]
    data = {
        "items": ids,
        "arms": {
            names[key]: {
                **rows[key], "against the first run": against.get(key),
                "each": {name: getattr(one, name).tolist() for name in ("right", "valid", "elsewhere", "readable")},
            }
            for key, one in found.items()
        },
    }  # fmt: skip
    return Analysis(NAME, table, _figure(names, rows), notes, data)


def _judged(one: Judged, families: Sequence[str], seed: int) -> dict[str, Any]:
    n = len(one.right)
    beyond = bootstrap_mean(one.valid.astype(float) - one.elsewhere, seed=seed)
    judged = int(one.readable.sum())
    out: dict[str, Any] = {"items": n, "judged": judged}
    for name in ("right", "valid", "elsewhere"):
        values = getattr(one, name)
        interval = proportion_interval(int(values.sum()), n)
        out[name] = {"share": float(values.mean()), "low": interval.low, "high": interval.high}
    share = float(one.valid.mean() - one.elsewhere.mean())
    out["beyond elsewhere"] = {"share": share, "low": beyond.low, "high": beyond.high}
    out["right and not valid"] = float((one.right & ~one.valid).mean())
    out["together"] = together(one, families, seed=seed)
    if not judged:
        out["says"] = "does not apply: no thought that can be judged"
    elif beyond.low > 0:
        out["says"] = "valid thoughts"
    else:
        out["says"] = "no more valid than on another question"
    return out


def _against(found: dict[tuple[int, str], Judged], seed: int) -> dict[tuple[int, str], dict[str, Any]]:
    """Each arm against the same arm of the first run."""
    out: dict[tuple[int, str], dict[str, Any]] = {}
    p_values = []
    for (run, key), one in found.items():
        if run == 0 or (0, key) not in found:
            continue
        first = found[0, key]
        out[run, key] = {}
        for name in ("right", "valid"):
            values = (getattr(judged, name).astype(float) for judged in (one, first))
            gap = paired(*values, seed=seed)
            out[run, key][name] = {"difference": gap.difference, "low": gap.interval.low, "high": gap.interval.high}
            assert gap.mcnemar_p is not None, "both are 0 or 1"
            p_values.append(gap.mcnemar_p)
    adjusted = iter(holm(p_values))
    for row in out.values():
        for name in ("right", "valid"):
            row[name]["holm p"] = next(adjusted)
    return out


def _row(name: str, found: dict[str, Any], against: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": name, "judged": f"{found['judged']} of {found['items']}"}
    row |= {key: found[key]["share"] for key in ("right", "valid", "elsewhere")}
    beyond = found["beyond elsewhere"]
    row["beyond elsewhere [95%]"] = shown(beyond["share"], Interval(beyond["low"], beyond["high"]))
    row["valid where right, less where wrong (p)"] = _with_p(found["together"]["gap"], found["together"]["p"])
    for key in ("right", "valid"):
        gap = against[key] if against else dict.fromkeys(("difference", "holm p"), float("nan"))
        row[f"{key}: to the first run (p)"] = _with_p(gap["difference"], gap["holm p"])
    return {**row, "says": found["says"]}


def _with_p(value: float, p: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3f} ({p:.3f})"


def _figure(names: dict[tuple[int, str], str], rows: dict[tuple[int, str], dict[str, Any]]) -> Any:
    def dots(key: str) -> list[Dot]:
        return [Dot(row[key]["share"], row[key]["low"], row[key]["high"]) for row in rows.values()]

    return dot_plot(
        [names[at] for at in rows], {"right": dots("right"), "valid": dots("valid")},
        nulls={"null: valid on another question": dots("elsewhere")},
        title="Right answers and valid thoughts", x="fraction of questions",
    )  # fmt: skip
