"""What a reader is told of a fit, and of how often each arm of its run thinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from elicit.evaluation.run.run import Run
from elicit.methods.thinkless.modes import SHORT, THINK, figure
from elicit.training.rl.curve import figure as training_figure
from probes.figures import noted, table
from probes.statistics import proportion_interval

NAME, PLAIN = "thinkless", "plain GRPO"


def notes(options: Mapping[str, Any]) -> list[str]:
    """The control tokens, the warm-up, what was learned, whether one mode was left, and how often is thought."""
    found, settings = options["found"], options["settings"]
    warm, before, after, modes = found["warm-up"], found["preflight"], found["summary"], found["modes"]
    out = [f"Control tokens: {found['told']}."]
    if warm:
        counts = ", ".join(
            f"{warm['examples'][mode]} {mode} ones ({warm['right'][mode]} of {warm['questions']} right, "
            f"{warm['tokens'][mode]:.0f} tokens)"
            for mode in (SHORT, THINK)
        )
        out.append(f"Warmed up on its own answers: {counts}; loss {warm['losses'][0]:.2f} to {warm['losses'][-1]:.2f}.")
    held = "not " if found.get("held out", True) else ""
    out += [
        f"Trained by {options['asked']['objective']}: {after['updates']} updates of {settings['rollouts']} rollouts; "
        f"reward {before['reward']:+.2f} before, {after['last reward']:+.2f} in the last update; {before['mixed']:.0%} "
        "of groups were mixed before.",
        f"It thought in {modes[THINK][0]:.0%} of rollouts of the first update and {modes[THINK][-1]:.0%} of the last; "
        + (f"collapsed: it took {found['collapsed']} alone at the end." if found["collapsed"] else "not collapsed."),
        f"Greedily it thinks on {found['rate']:.0%} of {found['measured']} questions that it was {held}trained on, "
        "which is the rate of its gates.",
    ]
    if found["rate"] in (0.0, 1.0):
        out.append(
            "So a gate of the same rate, random or by entropy, chooses as it does: no question tells them apart."
        )
    return out


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: how often was thought, update by update, and the training."""
    found = options["found"]
    note = "Of the rollouts of each update; at 0 or 1 the policy has one mode left, which is the paper's collapse."
    return [
        ("How often it thinks", note, figure({NAME: found["modes"]})),
        ("Training", "On the fit items; entropy of the policy at the right.", training_figure(found["curve"], None)),
    ]


def findings(run: Run) -> list[Any]:
    """For the report of a run with controls: how often each arm thought, and both objectives' curves."""
    arms = run.store.config["arms"]
    found = {name: about["options"]["found"] for name, about in arms.items() if name in (NAME, PLAIN)}
    if NAME not in found:
        return []
    ids = found[NAME]["tokens"]
    rows = []
    for name, about in arms.items():
        first = [some[0].tokens[:1] for some in run.traces.get(about["source"], {}).values()]
        if not first or not all(tokens and tokens[0] in (ids[SHORT], ids[THINK]) for tokens in first):
            continue
        thought = sum(tokens[0] == ids[THINK] for tokens in first)
        low, high = proportion_interval(thought, len(first)).pair
        right = np.mean(list(run.metrics["arms"][name]["scores"].values()))
        rows.append((name, f"{thought / len(first):.2f} [{low:.2f}, {high:.2f}]", f"{100 * right:.1f}"))
    out: list[Any] = []
    if rows:
        note = "Arms whose every answer begins with a control token; gates have the rate that was found on dev items."
        out += [
            "<h2>When it thinks</h2>",
            noted(note),
            table(("arm", "thinks [95%]", "right, %"), rows),
        ]
    if PLAIN in found:
        curves = {name: one["modes"] for name, one in found.items()}
        ends = "; ".join(f"{name}: {one['collapsed'] or 'no'} collapse" for name, one in found.items())
        out.append(("Both objectives", f"The fraction of rollouts that think. {ends}.", figure(curves)))
    return out
