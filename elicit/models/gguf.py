"""GGUF files: dequantised once and kept as fp32 safetensors in the cache, under the hash of their bytes."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from elicit.models.download import OnDownload, cache_dir
from elicit.models.loading import check_whole, first_line, load_whole, reading_tokenizer
from elicit.models.memory import check_built, check_sizes
from probes.errors import GARBLED, UserError
from probes.gguf_header import check_counts

PROVENANCE_FILE = "elicit.json"
READING = 2  # raised where files come to be read otherwise, so that what was converted before is not taken


def converted_folder(sha256: str, label: str) -> Path:
    """The folder of a GGUF file that is dequantised, whether it is there or not."""
    return cache_dir() / "models" / f"{label}-{sha256[:16]}"


def converted(gguf: Path, sha256: str, label: str, progress: OnDownload | None, source: str = "") -> Path:
    """The folder with the dequantised GGUF file, made once: it appears in one rename when complete."""
    folder = converted_folder(sha256, label)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if progress is not None:
        progress("converting to safetensors (once)", 0, 1)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
        made = Path(scratch) / "model"
        _convert(gguf, made)
        (made / PROVENANCE_FILE).write_text(
            json.dumps({"source": source or f"file {gguf.name}", "sha256": sha256}, indent=2)
        )
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process finished first, with the same bytes
                raise
    return folder


def _convert(gguf: Path, out: Path) -> None:
    from gguf import GGUFReader

    from elicit.models.gguf_settings import settle, settle_split, told

    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        check_counts(gguf)
        file = GGUFReader(gguf)
        described = {key.rpartition(".")[2]: value for key, value in told(file).items()}
        if "block_count" not in described:  # transformers would take its default, and then many seconds
            raise UserError(f"{gguf.name} does not say how many blocks its model has; copy it again or convert it anew")
        shapes = [tensor.shape.tolist() for tensor in file.tensors]
        check_sizes(gguf.name, [described], shapes)
        config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
        check_built(gguf.name, config, shapes)
        lm = load_whole(repr(gguf.name), gguf.parent, config=config, gguf_file=gguf.name, dtype=torch.float32)
        check_whole(repr(gguf.name), lm, _beyond([tensor.name for tensor in file.tensors], lm.config))
        settle(gguf.name, file, lm)
        with reading_tokenizer(gguf.name):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        settle_split(gguf.name, file, tokenizer)
        # The loaded model counts as quantised and refuses to be saved: its state goes into a fresh one.
        config = lm.config
        del config.quantization_config
        config.dtype = torch.float32
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(config)
        fresh.load_state_dict(lm.state_dict(), assign=True)
        fresh.tie_weights()
        fresh.generation_config = lm.generation_config
        fresh.save_pretrained(out)
        tokenizer.save_pretrained(out)
    except (OSError, struct.error, NotImplementedError, StrictDataclassError, *GARBLED) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise UserError(
            f"GGUF file {gguf.name!r} could not be converted ({first_line(error)}); "
            "give a GGUF file of an architecture that transformers reads"
        ) from error
    finally:
        if bar:
            logging.enable_progress_bar()


def _beyond(names: list[str], config: Any) -> dict[str, Any]:
    """Tensors of blocks that a GGUF file's configuration does not count, which would be skipped silently."""
    blocks = [re.match(r"blk\.(\d+)\.", name) for name in names]
    beyond = {found.string for found in blocks if found and int(found[1]) >= config.num_hidden_layers}
    return {"missing_keys": set(), "unexpected_keys": beyond, "mismatched_keys": set()}
