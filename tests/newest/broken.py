"""Which tests failed, by why, and in which package that stands: read from pytest's JUnit file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree


class Why(NamedTuple):
    """Of a failure: the package of `site` that its traceback ends in ("" where it meets none), and the error."""

    package: str
    error: str


def failures(junit: Path, site: Path) -> tuple[dict[Why, list[str]], Counter[str]]:
    """Failing tests by why, the largest group first; and how many tests passed, failed and were skipped.

    Args:
        junit: what `pytest --junitxml` wrote.
        site: the folder of packages that are looked for in tracebacks.
    """
    groups: dict[Why, list[str]] = {}
    counts: Counter[str] = Counter()
    for case in ElementTree.parse(junit).iter("testcase"):
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        if bad is None:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
            continue
        counts["failed"] += 1
        text = bad.text or ""
        met = re.findall(re.escape(site.name) + r"/([\w-]+)", "\n".join(_places(text, site)))
        last = re.findall(r"^E +(\S.*)$", text, re.MULTILINE) or (bad.get("message") or "no reason").splitlines()
        why = Why(met[-1] if met else "", re.sub(r"0x[0-9a-f]+", "0x…", last[0])[:160])
        groups.setdefault(why, []).append("::".join(filter(None, (case.get("classname"), case.get("name")))))
    return dict(sorted(groups.items(), key=lambda one: -len(one[1]))), counts


def _places(text: str, site: Path) -> list[str]:
    """The lines of a traceback that stand in `site`, whose path may be relative there."""
    tail = "/".join(site.parts[-4:])  # .venv-newest/lib/python3.11/site-packages
    return [line for line in text.splitlines() if tail in line]
