"""A model's weights as its file holds them, and no others.

`transformers` draws at random what a file lacks or holds in another shape, leaves out what the model has no place for,
prints a table and continues. Here all three are refused. Left over, and no fault: what `transformers` itself passes
over; masks and position tables that older versions saved; heads that guess further tokens; and, in a model that also
sees or hears, the parts that do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import GARBLED, UserError

TABLES = re.compile(r"(^|\.)((attn|attention)\.(bias|masked_bias|causal_mask)|rotary_emb\.inv_freq|position_ids)$")
UNJOINED = re.compile(r"^(\S+) +\| \S*CONVERSION", re.MULTILINE)
GUESSES = re.compile(r"(^|\.)mtp(_\w+)?\.")
SENSES = re.compile(r"(^|\.)(vision|visual|audio|speech|image|multi_?modal|mm)(_\w+)?\.")


def load_whole(what: str, place: Path, **arguments: Any) -> PreTrainedModel:
    """Load a causal LM whose weights are all there and all used; `what` names them in the message.

    Raises:
        UserError: weights that are missing, left over, or of another shape.
    """
    with _without_report() as reports:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
        except RuntimeError as error:
            parts = [name for report in reports for name in UNJOINED.findall(report)]
            if not parts:  # another fault, like memory
                raise
            raise UserError(
                f"weights of {what} that are joined in loading, like those of experts, are missing or of another shape "
                f"({', '.join(parts[:3])}); fetch or save them again"
            ) from error
    lm: PreTrainedModel
    lm, found = loaded
    left_over = {key for key in found["unexpected_keys"] if not _harmless(lm, key)}
    check_whole(what, lm, {**found, "unexpected_keys": left_over})
    return lm


def load_tokenizer(name: str, place: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not any((place / f).is_file() for f in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise UserError(
            f"model {name!r} has no tokenizer (no tokenizer.json or tokenizer.model in its folder); "
            "save one there with tokenizer.save_pretrained"
        )
    with reading_tokenizer(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise TypeError(f"model_max_length is {tokenizer.model_max_length!r}")
        model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
        if isinstance(model, BPE) and model.unk_token is not None and model.token_to_id(model.unk_token) is None:
            # Else it is an error as soon as something is unknown.
            raise ValueError(f"its token for what is unknown, {model.unk_token!r}, is none of its tokens")
        return tokenizer


@contextmanager
def reading_tokenizer(name: str) -> Iterator[None]:
    """What a library raises over the tokenizer of a model of this name is one line."""
    try:
        yield
    except Exception as error:  # tokenizers raises nothing more special
        if type(error) is not Exception and not isinstance(error, (OSError, StrictDataclassError, *GARBLED)):
            raise
        raise UserError(f"the tokenizer of {name!r} could not be read ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """Of what a library says of a fault."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def check_whole(what: str, lm: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Refuse what `transformers` found in loading.

    Raises:
        UserError: weights that are missing, left over, or of another shape.
    """
    faults = []
    if missing := sorted(found["missing_keys"]):
        faults.append(f"{len(missing)} missing, like {missing[0]}")
    if left_over := sorted(found["unexpected_keys"]):
        faults.append(f"{len(left_over)} without a place in it, like {left_over[0]}")
    if shapes := sorted(found["mismatched_keys"]):
        name, held, needed = shapes[0]
        faults.append(f"{len(shapes)} of another shape, like {name}: {list(held)} for {list(needed)}")
    if faults:
        raise UserError(
            f"the weights of {what} are not those of the {type(lm).__name__} that its configuration describes "
            f"({'; '.join(faults)}); fetch or save weights and configuration again, together"
        )


def _harmless(lm: PreTrainedModel, key: str) -> bool:
    """Whether a weight that has no place in the model takes no part in its next token."""
    parts = getattr(type(lm.config), "sub_configs", {})
    senses = any("vision" in part or "audio" in part for part in parts)
    return bool(TABLES.search(key) or GUESSES.search(key) or (senses and SENSES.search(key)))


@contextmanager
def _without_report() -> Iterator[list[str]]:
    """Keep back the tables of faults that `transformers` prints, at whatever verbosity: they are reported in
    one line."""
    logger = logging.getLogger("transformers.modeling_utils")
    own, shown = logger.level, logger.getEffectiveLevel()
    reports: list[str] = []

    def printed(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" not in str(record.msg):
            return record.levelno >= shown
        reports.append(str(record.msg))
        return False

    logger.addFilter(printed)
    logger.setLevel(min(shown, logging.WARNING - 1))  # at WARNING itself it looks for layers that are not sharded
    try:
        yield reports
    finally:
        logger.setLevel(own)
        logger.removeFilter(printed)
