"""`Model`: weights, tokenizer and provenance, from a hub id, a folder, a GGUF file or a name of the zoo.

Nothing is ever unpickled: weights are read from safetensors or GGUF alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from elicit.models import zoo
from elicit.models.download import OnDownload, SourceError, cache_dir, fetch, hub_snapshot
from elicit.models.gguf import PROVENANCE_FILE, READING, converted, converted_folder
from elicit.models.loading import first_line, load_tokenizer, load_whole
from elicit.models.memory import check_described, check_room
from elicit.models.processor import has
from elicit.models.quantised import Stored, cast_plain, quantised, reading_of, stored
from probes.description import Base, Part
from probes.errors import GARBLED, UserError, as_expected, unknown
from probes.files import read_json, sha256_of
from probes.given import TEXT, Meant, takes
from steering.adapters import Adapter, merge

DEFAULT_MODEL = "smollm2-135m"
DTYPES = ("auto", "float32", "bfloat16", "float16")
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")  # how a model is laid over several GPUs
# Ends of a turn or a document that instruction-tuned checkpoints write though their configuration names one of them.
END_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<end_of_turn>", "</s>")


@dataclass(frozen=True)
class Provenance:
    """Where weights came from; `sha256` covers the weight bytes (the GGUF file, or all safetensors files)."""

    name: str
    source: str
    revision: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """A causal LM in evaluation mode with its tokenizer and where it came from.

    Args:
        name: by which it was asked for.
        lm, tokenizer, provenance: weights, words, and where they are from.
        engine: the name of what decodes it (`elicit.decoding.engine.ENGINES`).
        stored: how its files hold quantised weights; None: they hold plain ones.
        engine_options: what the engine is told (`elicit.decoding.engine.Engine.options`).

    Attributes:
        kept: what was made of it, for as long as it lives; a copy with other weights or another engine begins anew.
    """

    name: str
    lm: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    provenance: Provenance
    engine: str = "hf"
    stored: Stored | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def vocab_size(self) -> int:
        head: Any = self.lm.get_output_embeddings()
        return int(getattr(head, "out_features", None) or head.weight.shape[0])  # a quantised weight is packed

    def description(self, base: Base) -> list[Part]:
        """Of a model that decides beside the base: all its weights."""
        bits = sum(8 * p.numel() * p.element_size() for p in self.lm.parameters())
        return [Part(f"all weights of {self.name}", float(bits))]

    @property
    def unlisted(self) -> tuple[int, ...]:
        """Ids of output rows that the tokenizer has no token for, and that are never chosen: most models' rows are
        rounded up (Qwen3's are 151,936 for 151,669 tokens)."""
        key = ("unlisted", len(self.tokenizer))  # tokens may be added to it
        if key not in self.kept:
            listed = set(self.tokenizer.get_vocab().values()) | set(self.tokenizer.added_tokens_decoder) | self.eos_ids
            if not self.tokenizer.is_fast:
                listed |= set(range(self.tokenizer.vocab_size))  # two of its pieces may be spelled alike
            self.kept[key] = tuple(i for i in range(self.vocab_size) if i not in listed)
        return self.kept[key]  # type: ignore[no-any-return]

    @property
    def choices(self) -> int:
        """How many tokens can be chosen."""
        return self.vocab_size - len(self.unlisted)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer: the configuration's, the tokenizer's and the usual end markers."""
        configured = self.lm.generation_config.eos_token_id if self.lm.generation_config else None
        ids = set(configured if isinstance(configured, list) else [configured])
        ids.add(self.tokenizer.eos_token_id)
        vocabulary = self.tokenizer.get_vocab()
        plain = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if not token.special}
        html = plain & {"</s>"}  # Gemma has tags as tokens, and this one ends text that is struck out
        special = set(self.tokenizer.all_special_tokens) | set(self.tokenizer.get_added_vocab()) - html
        ids |= {vocabulary[t] for t in END_TOKENS if t in special and t in vocabulary}
        return frozenset(int(i) for i in ids if i is not None)

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Over what makes token ids mean the same: the vocabulary and the special tokens."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        special = sorted(str(t) for t in self.tokenizer.all_special_tokens)
        return hashlib.sha256(json.dumps([vocabulary, special]).encode()).hexdigest()

    @property
    def encoding_sha256(self) -> str:
        """Over all that decides which ids a prompt becomes and what ids say: the whole tokenizer and its chat template.

        Read anew each time, since a notebook may give the tokenizer another template.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        whole = "" if backend is None else backend.to_str()
        beside = [self.tokenizer_sha256, self.tokenizer.special_tokens_map, self.tokenizer.chat_template]
        key = ("encoding", hashlib.sha256(whole.encode()).hexdigest(), json.dumps(beside, default=str))
        if key not in self.kept:  # seconds, of a vocabulary of 262,144
            made: Any = json.loads(whole or "{}")
            rest = {key: value for key, value in made.items() if key not in ("truncation", "padding")}  # a call's own
            said = json.dumps([beside[0], rest, *beside[1:]], sort_keys=True, default=str)
            self.kept[key] = hashlib.sha256(said.encode()).hexdigest()
        return self.kept[key]  # type: ignore[no-any-return]

    @property
    def dtype(self) -> str:
        return str(self.lm.dtype).removeprefix("torch.")

    @property
    def quantised(self) -> str:
        """What its quantised weights are and what is computed with them; "" of plain ones."""
        return "" if self.stored is None else self.stored.described(self.lm)

    def describe(self) -> dict[str, str]:
        """Its engine is named where it is not `hf`, and quantised weights where they are."""
        more = {} if self.engine == "hf" else {"engine": self.engine}
        if self.quantised:
            more["quantised"] = self.quantised
        return {**asdict(self.provenance), "dtype": self.dtype, "device": str(self.lm.device), **more}


MODEL = Meant((Model,), "what elicit.load_model returns")
_LOADED = "a name, a hub id, a folder or a .gguf file (a model that is loaded already: save it with save_pretrained)"


@takes(
    name=Meant((str, Path), _LOADED),
    dtype=Meant((str, torch.dtype), f"one of {', '.join(DTYPES)}"),
    device=Meant((str, torch.device), "auto, or a torch device"),
    revision=TEXT,
    engine=TEXT,
)
def load_model(
    name: str | Path = DEFAULT_MODEL,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    revision: str | None = None,
    engine: str = "hf",
    engine_options: Mapping[str, Any] | None = None,
    progress: OnDownload | None = None,
) -> Model:
    """Load a causal LM for evaluation.

    Args:
        name: a name of the zoo, a hub id (`owner/name`), a folder with safetensors or with an organism, or a `.gguf`
            file. An organism's adapter is merged into its base, in fp32.
        dtype: one of `auto`, `float32`, `bfloat16`, `float16`. `auto` is bfloat16 where the machine
            multiplies it natively (CUDA, AVX512-BF16, AMX), else float32.
        device: `auto`, or a torch device.
        device_map: passed on, e.g. `"auto"` to spread a model over several GPUs, or the device of each module (`"cpu"`,
            `"disk"`); the embedding's is that of the inputs.
        revision: branch, tag or commit of a hub repository.
        engine: what decodes it: a name of `elicit.decoding.engine.ENGINES`, or `module:Class` of one's own.
        engine_options: what the engine is told, such as `tensor_parallel_size` of `vllm`.
        progress: called while weights are fetched.

    Raises:
        UserError: an unknown name, a folder without weights or tokenizer, no network, a wrong hash, weights beyond the
            memory that is free; an argument of another type.
    """
    name, dtype = str(name), str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    target = _device(str(device))
    grown = _organism(name)
    place, provenance = _resolve(grown.base if grown else name, revision, progress)
    tokenizer = load_tokenizer(name, place)
    wanted = _dtype(dtype, target)
    arguments: dict[str, Any] = {"dtype": torch.float32 if grown else wanted, "use_safetensors": True}
    if device_map is not None:
        _check_map(device_map)
        arguments["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    if not (place / "config.json").is_file():
        raise UserError(f"model folder {name!r} holds no config.json; save the model with save_pretrained")
    kind = stored(place, name)
    if kind is not None and device_map is None:
        arguments["device_map"] = {"": target}  # packed weights are put where they stay as they are read
    lm = _load_lm(name, place, arguments, target if device_map is None else None, kind)
    if lm.device.type == "meta":
        raise UserError(
            f"the embedding of {name!r} is held where nothing is computed (device_map {device_map}); give it a device"
        )
    if kind is not None and not quantised(lm):
        cast_plain(lm, wanted)
    if grown is not None:
        provenance = grown.onto(lm, name, provenance)
        lm.to(wanted)  # type: ignore[arg-type]  # merged in fp32 first: rounded once
    if device_map is None and not quantised(lm):
        lm.to(target)  # type: ignore[arg-type]
    for parameter in lm.parameters():
        parameter.requires_grad_(False)
    return Model(name, lm.eval(), tokenizer, provenance, engine, kind, engine_options or {})


def load_same(about: Mapping[str, Any], made: str, remedy: str) -> Model:
    """The model that something was made on, loaded by name.

    Args:
        about: it, as `Model.describe` has it.
        made, remedy: what was made on it, and what to do where it is gone; for the refusal.

    Raises:
        UserError: what has that name here has other weights.
    """
    model = load_model(about["name"], dtype=about["dtype"], engine=about.get("engine", "hf"))
    if model.provenance.sha256 != about["sha256"]:
        raise UserError(
            f"{made} was made on {about['name']} {about['sha256'][:12]}…, what has that name here is "
            f"{model.provenance.sha256[:12]}…; {remedy}"
        )
    return model


@dataclass(frozen=True)
class _Organism:
    """An adapter that is merged into the base that it was trained on."""

    base: str
    base_sha256: str
    adapter: Adapter

    def onto(self, lm: PreTrainedModel, name: str, base: Provenance) -> Provenance:
        if base.sha256 != self.base_sha256:
            raise UserError(
                f"{name!r} is an adapter for the base {self.base_sha256[:12]}… and {self.base!r} is "
                f"{base.sha256[:12]}… here; give the base that it was trained on"
            )
        merge(lm, self.adapter)
        both = hashlib.sha256(f"{base.sha256} {self.adapter.sha256}".encode()).hexdigest()
        return Provenance(name, f"{base.source} + adapter {self.adapter.sha256[:12]}", base.revision, both)


def _organism(name: str) -> _Organism | None:
    """What an organism's name or folder stands for, if it is one."""
    folder, about = zoo.organism_folder(name), zoo.about(name)
    if about is None or (folder / zoo.WHOLE).is_dir():
        return None
    adapter = Adapter(folder / zoo.ADAPTER)
    if name in zoo.ORGANISMS and adapter.sha256 != zoo.ORGANISMS[name].sha256:
        raise UserError(f"the adapter of {name!r} is not the one that was shipped; install elicit again")
    with as_expected(f"what {name!r} says of its base", "make or fetch the organism again"):
        return _Organism(str(about["base_name"]), str(about["base"]), adapter)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and has("bf16-products"):
        return torch.bfloat16
    return torch.float32


def _device(name: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None and "LOCAL_RANK" in os.environ:  # of several processes each has its own
            return torch.device(accelerator.type, int(os.environ["LOCAL_RANK"]))
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give cpu, cuda, mps or auto"
        ) from error
    return device


def _check_map(given: str | Mapping[str, Any]) -> None:
    """Refuse a device map that names what is no device here; numbers are those of GPUs."""
    known = SPREADS if isinstance(given, str) else ("disk",)
    for place in [given] if isinstance(given, str) else given.values():
        if isinstance(place, str) and place not in known:
            try:
                _device(place)
            except UserError as error:
                raise UserError(
                    f"device_map {given!r} was given, and {place!r} is no device here; "
                    f"give {', '.join(known)} or a device like cpu"
                ) from error


def _resolve(name: str, revision: str | None, progress: OnDownload | None) -> tuple[Path, Provenance]:
    """The folder that holds the model, fetched and converted where need be."""
    path = Path(name).expanduser()
    if revision is not None and (name in zoo.WEIGHTS or path.exists()):
        raise UserError(f"revision {revision!r} was given for {name!r}, which is no hub repository; leave it out")
    if name in zoo.WEIGHTS:
        return _from_zoo(name, progress)
    if zoo.about(name) is not None:
        path = path / zoo.WHOLE
    if path.is_dir():
        return path, Provenance(name, f"folder {path.resolve().name}", "", _folder_hash(path))
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"model file {name!r} is not a .gguf file; give a GGUF file or a folder with safetensors")
        digest = sha256_of(path)
        return converted(path, digest, f"{path.stem}-{READING}", progress), Provenance(
            name, f"file {path.name}", "", digest
        )
    if name in zoo.ALIASES or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        return _from_hub(name, revision)
    raise unknown(
        "model",
        name,
        [*zoo.WEIGHTS, *zoo.ORGANISMS, *zoo.ALIASES],
        hint="(or a hub id owner/name, a folder, a .gguf file)",
    )


def _from_zoo(name: str, progress: OnDownload | None) -> tuple[Path, Provenance]:
    weights = zoo.WEIGHTS[name]
    folder = converted_folder(weights.sha256, name)
    if not folder.is_dir():
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-") as scratch:
            gguf = Path(scratch) / weights.file
            source = fetch(name, weights, gguf, progress)
            converted(gguf, weights.sha256, name, progress, source)
    about = read_json(folder / PROVENANCE_FILE, "remove its folder, and it is converted again")
    return folder, Provenance(name, str(about.get("source")), "", weights.sha256)


def _from_hub(name: str, revision: str | None) -> tuple[Path, Provenance]:
    repo = zoo.ALIASES.get(name, name)
    patterns = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    try:
        place = hub_snapshot(repo, revision, patterns)
    except SourceError as error:
        raise UserError(
            f"model {repo!r}: {error}; check the id and the network, "
            f"or use {' or '.join(zoo.WEIGHTS)}, a folder or a GGUF file"
        ) from error
    return place, Provenance(name, f"hub {repo}", place.name, _folder_hash(place))


def _folder_hash(folder: Path) -> str:
    """SHA-256 over the names and SHA-256 of all safetensors files; a hub blob's name already is its hash."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"model folder {str(folder)!r} holds no .safetensors file; save the model with save_pretrained "
            "(pickled weights are not read)"
        )
    total = hashlib.sha256()
    for file in files:
        blob = file.resolve().name
        digest = blob if len(blob) == 64 and file.is_symlink() else _remembered_hash(file)
        total.update(f"{file.name} {digest}\n".encode())
    return total.hexdigest()


def _remembered_hash(file: Path) -> str:
    """The file's SHA-256, computed once for each path, size and time of change."""
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    memo = cache_dir() / "hashes" / key
    if memo.is_file():
        return memo.read_text()
    digest = sha256_of(file)
    memo.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=memo.parent, delete=False) as part:
        part.write(digest)
    Path(part.name).replace(memo)
    return digest


def _load_lm(
    name: str, place: Path, arguments: dict[str, Any], target: torch.device | None, kind: Stored | None
) -> PreTrainedModel:
    from safetensors import SafetensorError

    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        check_described(name, place, kind is not None)
        if target is not None:  # else it is spread over devices, and to the disk if need be
            check_room(name, place, None if kind else arguments["dtype"], target)
        with reading_of(name, kind):
            return load_whole(repr(name), place, **arguments)
    except SafetensorError as error:
        raise UserError(f"the weights of {name!r} are broken ({error}); fetch or save them again") from error
    except OSError as error:  # of the shards that the index names
        raise UserError(
            f"weights of {name!r} are missing ({str(error).splitlines()[0]}); fetch or save them again"
        ) from error
    except (StrictDataclassError, AssertionError, *GARBLED) as error:  # torch asserts that a padding id is a row
        raise UserError(
            f"{name!r} is not a causal language model, or its configuration is not whole ({first_line(error)}); "
            "fetch or save it again"
        ) from error
    finally:
        if bar:
            logging.enable_progress_bar()
