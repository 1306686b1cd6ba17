"""How often `elicit check-steering --endpoint` is wrong of a server whose rounding, steering and fault are known.

    python -m experiments.simulations.endpoint              # about ten minutes on one core
    python -m experiments.simulations.endpoint --sims 20    # fewer draws

A server is drawn anew each time: a distribution over 40 words after each text, steered by noise of a given size on its
logits, and rounded by noise of another size, fresh in each request and at each position. It is asked by the check's own
code. Rounding of 1e-5 nats is that of float32, 0.03 of bfloat16, 0.1 of a worse kernel. A right server that fails is a
false alarm; a fault whose question holds is a miss, and one of which the check says that it cannot be told is neither.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.special import log_softmax

from elicit.cli.terminal import show_table
from probes.statistics import proportion_interval
from steering.check import check_endpoint
from steering.check.completions import TOP, Said, Server
from steering.check.report import FAILS, HOLDS

WORDS = tuple(f" w{n}" for n in range(40))
SPREAD = 2.0  # of the logits
ROUNDING = {"float32": 1e-5, "bfloat16": 0.03, "worse": 0.1}
STEERING = (0.03, 0.3, 1.0, 3.0)  # of the logits, in nats
FIRST = 3
FAULTS = {  # and the question that has to find each
    "none": "",
    "cached steps unsteered": "decoding = whole text",
    "first row only": "batched = single",
    "others in the batch": "unsteered, batched = single",
    "first positions unsteered": "first position of the prompt",
    "ignored": "anything moved",
}


class Drawn(Server):
    """A server as its client shows it."""

    def __init__(self, seed: int, rounding: float, steering: float, fault: str) -> None:
        self.seed, self.rounding, self.steering, self.fault = seed, rounding, steering, fault
        self.noise = np.random.default_rng(seed)
        self.url = "drawn"

    def __enter__(self) -> Drawn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def after(self, tokens: Sequence[str], steered: bool) -> np.ndarray:
        """Log-probabilities of the next word, as one request has them."""
        draw = np.random.default_rng([self.seed, zlib.crc32("".join(tokens).encode())])
        logits = SPREAD * draw.standard_normal(len(WORDS))
        steered = steered and self.fault != "ignored"
        logits += steered * self.steering * draw.standard_normal(len(WORDS))
        found: np.ndarray = log_softmax(logits + self.rounding * self.noise.standard_normal(len(WORDS)))
        return found

    def one(self, prompt: str, tokens: int, *, steered: bool = False) -> Said:
        cached = steered and self.fault != "cached steps unsteered"
        text, out = _tokens(prompt), Said("", [], [], [])
        for step in range(tokens):
            found = self.after([*text, *out.tokens], cached if step else steered)
            order = np.argsort(-found)[:TOP]
            out.tokens.append(WORDS[order[0]])
            out.logprobs.append(float(found[order[0]]))
            out.top.append({WORDS[n]: float(found[n]) for n in order})
        return Said("".join(out.tokens), out.tokens, out.logprobs, out.top)

    def ask(self, prompts: Sequence[str], tokens: int, *, steered: bool) -> list[Said]:
        others = steered
        if self.fault == "first row only":
            others = False
        elif self.fault == "others in the batch":
            others = True
        return [self.one(one, tokens, steered=others if n else steered) for n, one in enumerate(prompts)]

    def echoes(self, prompt: str) -> bool:
        return True

    def echo(self, text: str, *, steered: bool) -> Said:
        tokens = _tokens(text)
        logprobs: list[float | None] = [None]
        top: list[dict[str, float]] = [{}]
        for n in range(1, len(tokens)):
            found = self.after(tokens[:n], steered and (n > FIRST or self.fault != "first positions unsteered"))
            known = dict(zip(WORDS, found.tolist(), strict=True))
            logprobs.append(known.get(tokens[n], float(found.mean())))  # a prompt's word: as likely as the mean of all
            top.append({WORDS[m]: float(found[m]) for m in np.argsort(-found)[:TOP]})
        return Said(text, tokens, logprobs, top)


def _tokens(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {one}" for one in rest)]


def case(rounding: float, steering: float, fault: str, sims: int) -> Mapping[str, int]:
    """How often the check fails, holds, and cannot tell: of a right server all of its questions, of a fault its own
    (where nothing moved, that one)."""
    counts = {FAILS: 0, HOLDS: 0, "untold": 0}
    for seed in range(sims):

        class Here(Drawn):
            def __init__(self, *_: Any, seed: int = seed, **__: Any) -> None:
                super().__init__(seed, rounding, steering, fault)

        with patch("steering.check.endpoint.Server", Here):
            report = check_endpoint("http://drawn", "drawn", {"steer": 1})
        if fault == "none" and report.failed:
            counts[FAILS] += 1
            continue
        verdicts = [one.verdict for one in report.answers if one.name in FAULTS.values()]
        asked = FAULTS[fault] if FAULTS[fault] in [one.name for one in report.answers] else "anything moved"
        told = report[asked].verdict if fault != "none" else HOLDS if set(verdicts) == {HOLDS} else ""
        counts[told if told in counts else "untold"] += 1
    return counts


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=200, help="servers of each kind")
    sims = parser.parse_args(given).sims
    if sims < 1:
        parser.error(f"--sims {sims} was given; give at least 1")
    rows = []
    for name, rounding in ROUNDING.items():
        for steering in STEERING:
            for fault in FAULTS:
                counts = case(rounding, steering, fault, sims)
                wrong = counts[FAILS] if fault == "none" else counts[HOLDS]
                low, high = proportion_interval(wrong, sims).pair
                rows.append((
                    f"{name} ({rounding:g})", f"{steering:g}", fault, "false alarm" if fault == "none" else "miss",
                    f"{wrong} of {sims} [{low:.1%}, {high:.1%}]", str(counts["untold"]),
                ))  # fmt: skip
    show_table(("rounding", "steering", "fault", "error", "found [95%]", "cannot be told"), rows)


if __name__ == "__main__":
    main()
