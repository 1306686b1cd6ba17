"""From a model's name and the `-M` arguments of Inspect to a handle.

`<method>:<model>` fits a method, on `fit_task` where it needs items; `bundle:<folder>` loads what was saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from elicit import methods
from elicit.decoding.pace import without_pool
from elicit.elicited import FILE, Elicited
from elicit.evaluation.evaluator import BATCH_ROWS
from elicit.evaluation.seen import SEEN
from elicit.integrations.inspect.fields import check_forward, checked_kind, checked_select, needs_kind
from elicit.methods.base import NeedsItems
from elicit.models.model import load_model
from elicit.tasks.answers import KINDS, Kind
from elicit.tasks.base import Grader, content_id
from elicit.tasks.registry import load_task
from probes.errors import UserError, as_expected, unknown
from probes.files import make_folder
from probes.sealed import read_sealed
from probes.sites import Site, check_site

BUNDLE = "bundle"
FIT_ON = f"-M fit_task=…, or elicit/{BUNDLE}:<folder>"
BY_SAMPLE = "by-sample"  # the kind of answers, where each sample or request says its own
LOADING = ("dtype", "device", "engine", "revision")
OWN = {  # with the type of each
    "kind": str, "batch_rows": int, "activations": str, "sites": (str, list), "fit_task": str, "fit_limit": int,
    "fit_seed": int, "dtype": str, "device": str, "engine": str, "revision": str,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is asked, and how.

    Args:
        handle: that answers.
        kind: of the answers, unless a request says another; None: none is looked for.
        grader: which says what answers are equivalent; None: that of the kind.
        seen: how the handle has seen an item (`fitted`, `chosen`), by the item's id and by its question.
        source: what the handle was made of, for the log.
        batch_rows: branches decoded together.
        activations: the folder that they go to, or None.
        sites: whose they are.
    """

    handle: Elicited
    kind: Kind | None
    grader: Grader | None
    seen: Mapping[str, str]
    source: Mapping[str, Any]
    batch_rows: int
    activations: Path | None
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class _Made:
    """A handle, what it was made of, the grader of the task that it was fitted on, and the hash of each of its
    questions by id."""

    handle: Elicited
    source: dict[str, Any]
    grader: Grader | None = None
    texts: dict[str, str] = field(default_factory=dict)


def asked(name: str, given: Mapping[str, Any], kind_told: bool = False) -> Asked:
    """The handle of a name, and the rest of the `-M` arguments.

    Args:
        name: as it follows `elicit/`.
        given: the arguments.
        kind_told: whether the kind of answers is said elsewhere.

    Raises:
        UserError: a name or argument that is wrong; a method that needs items and gets none; a kind that is missing.
    """
    if "," in name:
        raise UserError(f"model {name!r} was given with a comma; give options as -M name=value, one each")
    method, colon, rest = name.partition(":")
    if not colon or not rest:
        raise UserError(f"model {name!r} was given; write elicit/<method>:<model> or elicit/{BUNDLE}:<folder>")
    own = {key: value for key, value in given.items() if key in OWN}
    options = {key: value for key, value in given.items() if key not in OWN}
    _check_types(own, options)
    loading = {key: own[key] for key in LOADING if key in own}
    if method == BUNDLE:
        with without_pool():
            made = _Made(_bundle(Path(rest), own, options, loading), {BUNDLE: rest})
    else:
        made = _fitted(method, rest, own, options, loading)
    handle = made.handle
    kind = checked_kind(own["kind"]) if own.get("kind", BY_SAMPLE) != BY_SAMPLE else None
    if needs_kind(handle) and "kind" not in own and not kind_told:
        raise UserError(
            f"{method} chooses by answers ({handle.select}) and their kind was not given; give -M kind=… "
            f"({', '.join(KINDS)}; or {BY_SAMPLE}: each sample says its own)"
        )
    rows = own.get("batch_rows", BATCH_ROWS)
    if rows < 1:
        raise UserError(f"batch_rows = {rows} was given; give at least 1")
    seen = {one: how for how, ids in handle.options.get(SEEN, {}).items() for one in ids}
    seen |= {one.rpartition("-")[2]: how for one, how in seen.items()}  # ids of most tasks end in their question's
    seen |= {text: seen[one] for one, text in made.texts.items() if one in seen}
    return Asked(handle, kind, made.grader, seen, made.source, rows, *_sites(own, handle))


def _check_types(own: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for key, value in own.items():
        types = OWN[key]
        if not isinstance(value, types) or isinstance(value, bool):  # type: ignore[arg-type]
            raise _wrong(key, value, "a whole number" if types is int else "a text")
    for key, value in options.items():
        if isinstance(value, list):  # Inspect splits at commas
            raise _wrong(key, value, "one value")


def _wrong(key: str, value: Any, expected: str) -> UserError:
    hint = "; a comma separates values: put the text in quotes in a file for --model-config" * isinstance(value, list)
    return UserError(f"-M {key} = {value!r} was given; expected {expected}{hint}")


def _bundle(folder: Path, own: Mapping[str, Any], options: Mapping[str, Any], loading: Mapping[str, Any]) -> Elicited:
    if any(key.startswith("fit_") for key in own):
        raise UserError("fit_task was given with a bundle, which is fitted already; leave it out")
    folder = folder.expanduser()
    if not (folder / FILE).is_file() and (folder / "elicited" / FILE).is_file():
        folder = folder / "elicited"  # a run's
    select = options.get("select")
    if other := options.keys() - {"select"}:
        known = [*OWN, "select"]
        raise unknown("argument of a bundle", sorted(other)[0], known)
    model = None
    if loading and (folder / FILE).is_file():
        with as_expected(repr(str(folder / FILE)), "save the bundle again"):
            name = str(read_sealed(folder / FILE, "save the bundle again")[0]["model"]["name"])
        model = load_model(name, **loading)
    handle = Elicited.load(folder, model)
    return handle if select is None else replace(handle, select=checked_select(select))


def _fitted(
    method: str, name: str, own: Mapping[str, Any], options: Mapping[str, Any], loading: Mapping[str, Any]
) -> _Made:
    known = methods.options_of(method)
    for key in options:
        if key not in known:
            raise unknown(f"option of {method}", key, [*known, *OWN])
    methods.check_options(method, options)
    task = None
    if "fit_task" in own:
        task = load_task(own["fit_task"], limit=own.get("fit_limit"), seed=own.get("fit_seed", 0))
    elif "fit_limit" in own or "fit_seed" in own:
        raise UserError("fit_limit and fit_seed go with fit_task; give that as well")
    elif methods.get(method).needs_items:
        raise UserError(f"{method} is fitted on items and none were given; give {FIT_ON}")
    with without_pool():
        model = load_model(name, **loading)
    try:
        handle = methods.fit(method, model, task.solved if task else None, **options)
    except NeedsItems as error:
        if task is not None:
            raise
        raise error.told(FIT_ON) from None
    source: dict[str, Any] = {"method": method, "model": name}
    texts: dict[str, str] = {}
    if task is not None:
        source["fit_task"] = {"name": own["fit_task"], **{k: own[k] for k in ("fit_limit", "fit_seed") if k in own}}
        texts = {item.id: content_id(item.question.strip()) for item in task.items}
    return _Made(handle, source, task.grader if task else None, texts)


def _sites(own: Mapping[str, Any], handle: Elicited) -> tuple[Path | None, tuple[Site, ...]]:
    """The folder of activations and the sites that are read."""
    if "activations" not in own and "sites" not in own:
        return None, ()
    if "activations" not in own or "sites" not in own:
        raise UserError("activations and sites go together; give -M activations=FOLDER -M sites=12.resid_post")
    check_forward(handle, "activations")
    given = own["sites"] if isinstance(own["sites"], list) else [own["sites"]]
    sites = tuple(Site.parse(str(one)) for one in given)
    for site in sites:
        if site.point == "pattern":
            raise UserError(f"site {site} was given; attention patterns have no width to keep in one file")
        check_site(handle.model.lm, site)
    return make_folder(Path(own["activations"]).expanduser()), sites
