"""Push a folder to the hub, and pull it: one commit, one revision, all files or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from elicit.hub import manifest as manifests
from elicit.hub.card import HUB_ID, MARK, base_of, card
from elicit.hub.kinds import found
from probes.errors import UserError
from probes.files import NO_ROOM, make_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
PLAIN = (".gitattributes", CARD)  # what the hub or a person puts into a repository that is otherwise empty
DATASETS = "datasets/"


@dataclass(frozen=True)
class Pushed:
    """What was pushed: `repo_type` is `model` or `dataset`, `left_out` the files of the folder that were not."""

    repo: str
    repo_type: str
    kind: str
    commit: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    bytes: int
    private: bool
    licence: str
    base_model: str


@dataclass(frozen=True)
class Pulled:
    """What was pulled, and from which commit."""

    folder: Path
    kind: str
    commit: str
    files: tuple[str, ...]
    bytes: int


def push(
    folder: Path | str,
    repo: str,
    *,
    licence: str = "",
    base_model: str = "",
    public: bool = False,
    api: HfApi | None = None,
) -> Pushed:
    """Push a bundle, a direction, an SAE, an adapter, a run or rollouts, with a card and a manifest, in one commit.

    Args:
        folder: what is pushed; files that its kind has not stay here, and are named.
        repo: `owner/name`; made where it is not there.
        licence: as the hub names it (`apache-2.0`, `mit`, `other`, …), for the card.
        base_model: the hub id of the base; unless given, the one that the folder names.
        public: for everybody; else a repository that is made is private.
        api: of another hub; unless given the one of the environment (`HF_ENDPOINT`, `HF_TOKEN`).

    Raises:
        UserError: a folder of no kind or one that is not whole, a name without owner, no token, a repository with
            other contents, a public one where `public` was not asked for, a hub that cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import RepositoryNotFoundError

    name = _name(repo)
    if base_model and not HUB_ID.fullmatch(base_model):
        raise UserError(f"base model {base_model!r} was given; give its id on the hub, as owner/name")
    with TemporaryDirectory(prefix="elicit-") as scratch:
        one = found(Path(folder), Path(scratch))
        repo_type = one.kind.repo_type
        if repo.startswith(DATASETS) and repo_type != "dataset":
            raise UserError(f"{repo!r} was given and a {one.kind.name} is kept as a model; leave {DATASETS!r} out")
        manifest = manifests.manifest_of(one)
        api = api or _api()
        if not _has_token(api):
            raise UserError("the hub was given no token; log in (hf auth login), or set HF_TOKEN to one that may write")
        with _told(f"{repo_type} {name!r}", "pushed"):
            info: Any
            try:
                info = api.repo_info(name, repo_type=repo_type)
            except RepositoryNotFoundError:
                api.create_repo(name, repo_type=repo_type, private=not public)
                info = api.repo_info(name, repo_type=repo_type)
            if not public and not info.private:
                raise UserError(f"{name!r} is public; give --public to push there, or another name")
            there = {file.rfilename for file in info.siblings or ()}
            stale = _stale(api, name, repo_type, info.sha, there, manifest)
            base = base_model or base_of(one)
            text = card(one, name, licence, base)
            add = [CommitOperationAdd(path, file) for path, file in one.files.items()]
            if CARD not in there or _is_ours(api, name, repo_type, info.sha):
                add.append(CommitOperationAdd(CARD, text.encode()))
            add.append(CommitOperationAdd(manifests.NAME, manifest.to_json().encode()))
            drop = [CommitOperationDelete(path, is_folder=False) for path in stale]
            try:
                commit = api.create_commit(
                    name, [*drop, *add], commit_message=f"A {one.kind.name}, pushed by elicit", repo_type=repo_type,
                    parent_commit=info.sha,
                )  # fmt: skip
            except ValueError as error:  # what the hub says of a card's metadata
                raise UserError(
                    f"the hub refuses the card of {name!r} with licence {licence!r} and base model {base!r}; give a "
                    "licence as the hub names it, and an id for the base"
                ) from error
    files, size = tuple(one.files), manifest.bytes
    left_out, private = tuple(one.left_out), bool(info.private)
    return Pushed(name, repo_type, one.kind.name, commit.oid, files, left_out, size, private, licence, base)


def pull(repo: str, folder: Path | str, *, revision: str | None = None, api: HfApi | None = None) -> Pulled:
    """Fetch what was pushed into a new folder, after every size and hash was checked.

    Args:
        repo: `owner/name`, or `datasets/owner/name` where a model has that name too.
        folder: to be made; nothing but what was pushed lies in it, byte for byte.
        revision: branch, tag or commit; the newest unless given.
        api: of another hub.

    Raises:
        UserError: a name without owner, no such repository, half an upload, another size or hash, a folder that is not
            empty, no room for it, a hub that cannot be reached. Nothing is left in the folder then.
    """
    name, folder = _name(repo), Path(folder)
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(folder)!r} is there and not an empty folder; give a new one")
    api = api or _api()
    info, repo_type = _info(api, name, repo.startswith(DATASETS), revision)
    what = f"{repo_type} {name!r}"
    there = {file.rfilename for file in info.siblings or ()}
    if manifests.NAME not in there:
        raise UserError(
            f"{what} holds no {manifests.NAME}: half an upload, or one that elicit did not make; push it again"
        )
    make_folder(target.parent)
    with TemporaryDirectory(prefix=".elicit-", dir=target.parent) as scratch, _told(what, "pulled"):
        where = {"repo_type": repo_type, "revision": info.sha, "local_dir": Path(scratch) / "fetched"}
        manifest = manifests.read(Path(api.hf_hub_download(name, manifests.NAME, **where)), what)
        if missing := [path for path in manifest.files if path not in there]:
            raise UserError(
                f"{what} is half an upload: {len(missing)} of {len(manifest.files)} files are missing, {missing[0]} "
                "among them; push it again"
            )
        free = shutil.disk_usage(scratch).free
        if manifest.bytes > free:
            raise UserError(
                f"{what} has {manifest.bytes:,} bytes and {str(target.parent)!r} has room for {free:,}; make room, or "
                "give another folder"
            )
        made = Path(scratch) / "made"
        made.mkdir()  # with the permissions of any new folder
        for path in manifest.files:
            file = Path(api.hf_hub_download(name, path, **where))
            manifest.check(path, file, what)
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            file.replace(made / path)
        made.replace(target)
    return Pulled(folder, manifest.kind.name, info.sha, tuple(manifest.files), manifest.bytes)


def _name(repo: str) -> str:
    """As `owner/name`.

    Raises:
        UserError: no owner, or what no name on the hub can be.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    name = repo.removeprefix(DATASETS)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"repository {repo!r} was given; give a name on the hub, as owner/name") from error
    if "/" not in name:
        raise UserError(f"repository {repo!r} was given, without an owner; give owner/name")
    return name


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="elicit")


def _has_token(api: HfApi) -> bool:
    from huggingface_hub import get_token

    return bool(api.token or get_token())


def _info(api: HfApi, name: str, dataset: bool, revision: str | None) -> tuple[Any, str]:
    """The repository of a name, and its type: a model, or a data set where no model has it."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if not dataset:
        try:
            with _told(f"model {name!r}", "pulled", RepositoryNotFoundError):
                return api.repo_info(name, repo_type="model", revision=revision), "model"
        except RepositoryNotFoundError:
            pass  # a data set may have the name
    with _told(f"repository {name!r}", "pulled"):
        return api.repo_info(name, repo_type="dataset", revision=revision), "dataset"


def _stale(
    api: HfApi, name: str, repo_type: str, commit: str, there: set[str], manifest: manifests.Manifest
) -> list[str]:
    """The files of an earlier push that this one has not.

    Raises:
        UserError: the repository holds something else.
    """
    if manifests.NAME not in there:
        if others := sorted(there - set(PLAIN)):
            raise UserError(
                f"{name!r} holds {len(others)} files that elicit did not push, {others[0]!r} among them; give another"
            )
        return []
    with TemporaryDirectory(prefix="elicit-") as scratch:
        file = api.hf_hub_download(name, manifests.NAME, repo_type=repo_type, revision=commit, local_dir=scratch)
        earlier = manifests.read(Path(file), repr(name))
    return [path for path in earlier.files if path in there and path not in manifest.files]


def _is_ours(api: HfApi, name: str, repo_type: str, commit: str) -> bool:
    """Whether the page of a repository is one that a push wrote, and nobody has taken over."""
    with TemporaryDirectory(prefix="elicit-") as scratch:
        file = api.hf_hub_download(name, CARD, repo_type=repo_type, revision=commit, local_dir=scratch)
        return MARK in Path(file).read_text(encoding="utf-8", errors="replace")


@contextmanager
def _told(what: str, done: str, *passed: type[Exception]) -> Iterator[None]:
    """Errors of the hub and of the disk, in one line for a user; those of `passed` go on as they are."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except passed:
        raise
    except errors.GatedRepoError as error:
        raise UserError(f"{what} is gated: accept its licence on the hub and log in (hf auth login)") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{what} is not on the hub, or is private: check the name, log in (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what} has no such revision; give a branch, tag or commit of it") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise UserError(f"{what} was not {done}: the hub could not be reached; connect to a network") from error
    except errors.HfHubHTTPError as error:
        raise UserError(f"{what} was not {done}: {_refusal(error.response.status_code)}") from error
    except httpx2.HTTPError as error:
        raise UserError(
            f"{what} was not {done}: the hub could not be reached ({type(error).__name__}); try again"
        ) from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(f"{what} was not {done}: no room on the disk; make room, and nothing was kept") from error


def _refusal(status: int) -> str:
    if status in (401, 403):
        return "the token may not do this; log in with one that may (hf auth login), or give a name of your own"
    if status == 412:
        return "somebody else pushed there meanwhile; try again"
    return f"the hub answered {status}; try again"
