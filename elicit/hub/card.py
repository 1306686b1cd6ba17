"""The card of a repository: its metadata as the hub reads them, and a page that says what the files are.

Names and descriptions may come from a model or from somebody else's file: they are shown as plain text, whatever
they hold.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.store import PARQUET as SAMPLES
from elicit.hub.kinds import PARQUET as ROLLOUTS
from elicit.hub.kinds import Found
from elicit.models import zoo
from elicit.models.model import DEFAULT_MODEL

MARK = "<!-- Written by elicit hub push; without this line a later push leaves the page as it is. -->"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LONGEST = 200  # characters of a text that somebody else wrote
ROWS = 40  # arms or interventions
TITLES = {
    "bundle": "What was done to a base language model: settings, interventions, adapter. The base is not in here.",
    "direction": "A steering direction: a vector with its site, its norm convention and how it was made.",
    "sae": "A sparse autoencoder in SAELens's layout.",
    "adapter": "An adapter as PEFT saves it.",
    "run": "A run: questions, every sample with its statistics by token, verdicts, metrics, a page that opens offline.",
    "rollouts": "Rollouts of a training by reinforcement learning: a row for each sampled answer, with its reward.",
}
USE = {
    "bundle": 'import elicit\n\nhandle = elicit.Elicited.load("FOLDER")',
    "direction": 'import elicit\n\nhandle = elicit.Elicited.load("FOLDER")',
    "sae": 'from probes.sae.load import load_sae\n\nsae = load_sae("REPO")  # or sae_lens.SAE.load_from_disk("FOLDER")',
    "adapter": 'from pathlib import Path\n\nfrom steering.adapters import Adapter\n\nadapter = Adapter(Path("FOLDER"))',
    "run": 'import datasets\n\nsamples = datasets.load_dataset("REPO", split="train")',
    "rollouts": 'import datasets\n\nrollouts = datasets.load_dataset("REPO", split="train")',
}


def card(found: Found, repo: str, licence: str, base: str) -> str:
    """A card as Markdown with metadata.

    Args:
        found: what is pushed.
        repo: as `owner/name`.
        licence: as the hub names it, or "".
        base: the hub id of the base model, or "".
    """
    kind = found.kind.name
    parts = [
        f"---\n{_metadata(found, licence, base).to_yaml()}\n---",
        MARK,
        f"# {plain(repo)}",
        TITLES[kind],
        _table([*_facts(found), ("base on the hub", base), ("licence", licence or "none was given")]),
        f"It was pushed by elicit {version('elicit')}; `manifest.json` has the SHA-256 of every file. "
        "This fetches them all and checks them:",
        f"```sh\nelicit hub pull {_prefix(found)}{repo} FOLDER\n```",
        f"```python\n{USE[kind].replace('REPO', repo)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def base_of(found: Found) -> str:
    """The hub id of the base model, where it has one; a folder or a file has none."""
    about, kind = found.about, found.kind.name
    if kind in ("bundle", "direction"):
        return "" if about["model"].get("source", "").startswith("folder") else hub_id(about["model"]["name"])
    if kind == "sae":
        return hub_id((about.get("metadata") or {}).get("model_name"))
    return hub_id(about.get("base_model_name_or_path")) if kind == "adapter" else ""


def hub_id(name: Any) -> str:
    """What a model's name stands for on the hub: an organism for its base, a name of ours for its first source."""
    text = str(name or "")
    if text in zoo.ORGANISMS:
        text = DEFAULT_MODEL
    if text in zoo.WEIGHTS:
        return next((one.repo for one in zoo.WEIGHTS[text].sources if isinstance(one, zoo.HubFile)), "")
    text = zoo.ALIASES.get(text, text)
    return text if HUB_ID.fullmatch(text) and not Path(text).exists() else ""


def plain(text: Any) -> str:
    """One line of text that no Markdown, HTML or formula comes out of."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    return re.sub(r"[^\w ,;/().=%+-]|__|_(?!\w)|(?<!\w)_|(?<=www)\.", _entities, line)


def _entities(match: re.Match[str]) -> str:
    return "".join(f"&#{ord(c)};" for c in match.group())


def _metadata(found: Found, licence: str, base: str) -> Any:
    from huggingface_hub import DatasetCardData, ModelCardData

    tags = ["elicit", f"elicit-{found.kind.name}"]
    if found.kind.repo_type == "dataset":
        file = SAMPLES if found.kind.name == "run" else ROLLOUTS
        configs = [{"config_name": "default", "data_files": file}]
        return DatasetCardData(license=licence or None, tags=tags, configs=configs)
    library = {"adapter": "peft", "sae": "saelens"}.get(found.kind.name, "elicit")
    relation: dict[str, Any] = {"base_model_relation": _relation(found)} if base and _relation(found) else {}
    return ModelCardData(license=licence or None, base_model=base or None, library_name=library, tags=tags, **relation)


def _relation(found: Found) -> str:
    """What it is to its base, in the hub's words; an SAE and mere settings are none of these."""
    if "weights" in found.about:
        return "finetune"
    acts = any(found.about.get(key) for key in ("interventions", "adapter", "partner", "mixing"))
    return "adapter" if acts or found.kind.name == "adapter" else ""


def _prefix(found: Found) -> str:
    return "datasets/" if found.kind.repo_type == "dataset" else ""


def _facts(found: Found) -> list[tuple[str, Any]]:
    about, kind = found.about, found.kind.name
    if kind in ("bundle", "direction"):
        plan = about.get("interventions", [])[:ROWS]
        return [
            ("method", about["method"]),
            *_model(about["model"]),
            ("decoding", about.get("decoder", {}).get("name", "")),
            *((f"{one.get('kind')}", _intervention(one)) for one in plan),
            ("SHA-256 of the adapter", about.get("adapter", "")),
            ("SHA-256 of the weights", about.get("weights", "")),
        ]
    if kind == "sae":
        metadata = about.get("metadata") or {}
        return [
            ("model", _name(metadata.get("model_name", ""))),
            ("SHA-256 of the model", metadata.get("model_sha256", "")),
            ("hook point", metadata.get("hook_name", "")),
            ("architecture", about.get("architecture", "")),
            ("latents", about["d_sae"]),
            ("width", about.get("d_in", "")),
        ]
    if kind == "adapter":
        return [
            ("type", about["peft_type"]),
            ("base", _name(about.get("base_model_name_or_path") or "")),
            ("rank", about.get("r", "")),
        ]
    if kind == "run":
        metrics, identity = about["metrics"], about["identity"]
        arms = list(metrics.get("arms", {}).items())[:ROWS]
        return [
            ("method", identity.get("method", "")),
            ("task", identity.get("task", "")),
            ("questions", metrics.get("items", "")),
            *_model(metrics.get("model", {})),
            *((f"accuracy of {name}", _accuracy(arm, metrics.get("items", 0))) for name, arm in arms),
        ]
    return [("rows", about["rows"]), ("columns", ", ".join(about["columns"]))]


def _model(model: dict[str, Any]) -> list[tuple[str, Any]]:
    return [("model", _name(model.get("name", ""))), ("SHA-256 of the model", model.get("sha256", ""))]


def _name(model: Any) -> str:
    """The last part of a path, which says nothing of somebody's machine; a hub id whole."""
    text = str(model)
    return text if HUB_ID.fullmatch(text) else Path(text).name


def _intervention(one: dict[str, Any]) -> str:
    when = one.get("when", {}).get("kind", "")
    return f"{one.get('source')} at {', '.join(map(str, one.get('sites', [])))}, strength {one.get('strength')}, {when}"


def _accuracy(arm: dict[str, Any], items: int) -> str:
    if not is_accuracy(arm, items):
        return "not stated: too many answers have no verdict"
    low, high = arm.get("interval") or (None, None)
    interval = "" if low is None or high is None else f" (95% interval {low:.1%} to {high:.1%})"
    return "not graded" if arm.get("accuracy") is None else f"{arm['accuracy']:.1%}{interval}"


def _table(rows: list[tuple[str, Any]]) -> str:
    kept = [(name, value) for name, value in rows if value not in ("", None)]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {plain(name)} | {plain(value)} |" for name, value in kept)])
