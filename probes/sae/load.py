"""Any sparse autoencoder as a `probes.sae.SAE`: a folder, a release that SAELens knows, a repository of the hub.

Names: `path/to/folder` (SAELens's; sparsify's and Gemma Scope's: `probes.sae.convert`), `release:sae_id`
(`gemma-scope-2-270m-it-res:layer_12_width_16k_l0_small`), `neuronpedia:model/source` (`probes.sae.neuronpedia`), and
`owner/repo:path/in/repo` for a repository that holds SAELens's two files or sparsify's. A release in another format is
read by SAELens's own loader for it and converted; its settings are fetched and checked before its weights.

Nothing is unpickled. Some loaders call `torch.load`, which reads tensors alone unless an environment variable forbids
it: under that variable no release is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

from probes.errors import UserError, unknown
from probes.sae.autoencoder import SAE, assemble
from probes.sae.config import check, read_config
from probes.sae.convert import PICKLED, SPARSIFY, foreign_file, load_foreign
from probes.sae.neuronpedia import is_id, named
from probes.sae.releases import releases

FORMS = "give a folder, release:sae_id or owner/repo:path/in/repo"
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_sae(name: str | Path, *, device: str = "cpu") -> SAE:
    """The SAE of a folder, of `release:sae_id` (a release of one SAE needs no id), or of `owner/repo:path`.

    Raises:
        UserError: an unknown name; files that cannot be reached or read; an SAE that `probes.sae.config.check`
            refuses.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        _refuse_pickled(folder)
        file = foreign_file(folder)
        return SAE.load(folder, device) if file is None else load_foreign(file).to(device)
    text = str(name)
    if is_id(text):
        text, index = named(text)
        if index is not None:
            raise UserError(f"{str(name)!r} names a feature where an SAE is asked for; leave its number out")
    if folder.is_file() and folder.suffix in PICKLED:
        raise UserError(f"{text!r} is pickled, and nothing is unpickled here; run: {_conversion(folder)}")
    if isinstance(name, Path) or folder.is_file():
        raise UserError(f"{text!r} is no folder; give the one that holds cfg.json and sae_weights.safetensors")
    release, _, sae_id = text.partition(":")
    if "/" in release:
        known = _registered(release, sae_id)
        return _from_release(*known, device) if known else _from_repository(release, sae_id, device)
    if release not in releases():
        raise unknown("SAE release", release, releases(), f"(or {FORMS})")
    saes = releases()[release].saes
    if not sae_id and len(saes) > 1:
        some = ", ".join(list(saes)[:5]) + (", …" if len(saes) > 5 else "")
        raise UserError(f"release {release!r} holds {len(saes)} SAEs; give {release}:sae_id with one of {some}")
    sae_id = sae_id or next(iter(saes))
    if sae_id not in saes:
        raise unknown("SAE", sae_id, saes, f"(in release {release!r})")
    return _from_release(release, sae_id, device)


def _refuse_pickled(folder: Path) -> None:
    if (folder / "cfg.json").is_file() or foreign_file(folder) is not None:
        return
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLED:
            raise UserError(f"{str(file)!r} is pickled, and nothing is unpickled here; run: {_conversion(folder)}")


def _conversion(source: Path) -> str:
    return f"elicit sae convert {shlex.quote(str(source))} --out FOLDER"


def from_saelens(sae: Any, *, name: str = "") -> SAE:
    """A `sae_lens.SAE` in fp32 on the CPU, where it may share memory with it.

    One in training is copied as its `save_inference_model` would save it.

    Raises:
        UserError: see `probes.sae.autoencoder.assemble`.
    """
    tensors = {key: tensor.detach().cpu() for key, tensor in sae.state_dict().items()}
    config = sae.cfg.to_dict()
    if hasattr(sae, "save_inference_model"):
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        sae.process_state_dict_for_saving_inference(tensors)
        config = sae.cfg.get_inference_sae_cfg_dict()
    name = name or sae.get_name()
    ours = assemble(config, tensors, what=f"SAE {name!r}", name=name)
    return replace(ours, sha256=hash_of(ours))


def hash_of(sae: SAE) -> str:
    """SHA-256 of the names, shapes and bytes of its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sae.tensors().items():
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().numpy().data)
    return digest.hexdigest()


def _registered(repo: str, path: str) -> tuple[str, str] | None:
    """The release and id of a repository's SAE, if SAELens is here and knows it: it may not be in SAELens's format."""
    if find_spec("sae_lens") is None:
        return None
    for release, entry in releases().items():
        if entry.repo == repo:
            for sae_id, place in entry.saes.items():
                if path in (sae_id, place):
                    return release, sae_id
    return None


def _from_release(release: str, sae_id: str, device: str) -> SAE:
    if os.environ.get(UNSAFE, "0").lower() not in ("", "0", "n", "no", "false"):
        raise UserError(f"{UNSAFE} is set, so that reading a release may run code that its files hold; unset it")
    name = f"{release}:{sae_id}"
    what = f"SAE {name!r}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SAELens's, at import and on settings that are checked here
        library = importlib.import_module("sae_lens")
        directory = importlib.import_module("sae_lens.loading.pretrained_saes_directory")
        loaders = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")
        with _readable(what), _reachable(what):
            config = loaders.load_sae_config_from_huggingface(release, sae_id)
        if directory.get_norm_scaling_factor(release, sae_id) is not None:
            config = {**config, "normalize_activations": "none"}  # SAELens folds it
        check(config, what)
        with _readable(what), _reachable(what):
            theirs = library.SAE.from_pretrained(release, sae_id)
    return from_saelens(theirs, name=name).to(device)


def _from_repository(repo: str, path: str, device: str) -> SAE:
    from huggingface_hub import hf_hub_download

    name = f"{repo}:{path}" if path else repo
    what = f"SAE {name!r}"
    place = f"{path.strip('/')}/" if path else ""
    with _reachable(what):
        config = hf_hub_download(repo, f"{place}cfg.json")
    settings = read_config(Path(config))
    if "k" in settings and "expansion_factor" in settings and "architecture" not in settings:  # sparsify's
        with _reachable(what):
            file = Path(hf_hub_download(repo, f"{place}{SPARSIFY}"))
        return replace(load_foreign(file), name=name).to(device)
    check(settings, what)
    with _reachable(what):
        weights = hf_hub_download(repo, f"{place}sae_weights.safetensors")
    return replace(SAE.load(Path(weights).parent, device), name=name)


@contextmanager
def _reachable(what: str) -> Iterator[None]:
    """Errors of the hub, in one line for a user."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise UserError(f"{what} is gated: accept its licence on the hub and log in (hf auth login)") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{what} was asked for; no folder has that name, and the hub has no such repository "
            f"(a private one needs: hf auth login); {FORMS}"
        ) from error
    except RemoteEntryNotFoundError as error:
        file = error.response.url.path.partition("/resolve/")[2].partition("/")[2]
        raise UserError(f"{what} was asked for; its repository holds no {file}; {FORMS}") from error
    except HFValidationError as error:
        raise UserError(f"{what} was asked for; no folder and no repository has such a name; {FORMS}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"{what} is not on this machine, and the hub could not be reached; connect to a network, or give a folder"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        raise UserError(f"{what} could not be fetched from the hub ({type(error).__name__}); try again") from error


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """What SAELens's loaders raise on files that they cannot read, in one line for a user."""
    import requests
    from safetensors import SafetensorError

    try:
        yield
    except UnpicklingError as error:
        raise UserError(
            f"{what} is cut or holds more than tensors; no code of a file is run here: choose another"
        ) from error
    except requests.HTTPError as error:  # Gemma Scope's loader asks for a file's header by itself
        raise UserError(f"{what} could not be fetched from the hub ({error}); a gated one needs a login") from error
    except requests.RequestException as error:
        raise UserError(
            f"the hub could not be reached for {what} ({type(error).__name__}); connect to a network, or give a folder"
        ) from error
    except (KeyError, ValueError, EOFError, BadZipFile, SafetensorError) as error:
        raise _broken(what, error) from error
    except (RuntimeError, OSError) as error:
        cut = isinstance(error, OSError) and error.errno == errno.EINVAL  # PyTorch seeks before the start of a cut file
        if not cut and not str(error).startswith(("PytorchStreamReader", "Error(s) in loading state_dict", "File '")):
            raise
        raise _broken(what, error) from error


def _broken(what: str, error: Exception) -> UserError:
    reason = " ".join(" ".join(str(error).split("\n")[:2]).split()).partition(". ")[0]
    return UserError(
        f"{what} could not be read ({type(error).__name__}: {reason or 'no data'}); "
        "its files are broken or of another form: delete them from the hub's cache and fetch them again"
    )
