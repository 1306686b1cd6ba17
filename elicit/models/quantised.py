"""Weights that a file holds in fewer bits (bitsandbytes, GPTQ, AWQ, FP8, compressed-tensors, torchao …).

`transformers` reads them, with a package for each kind; what cannot be read here is refused in one line that names the
package or the device. The residual stream is of a plain dtype all the same, in which activations are captured and
steered. Where a machine has no products of a kind (FP8 and MXFP4 on a CPU), `transformers` reads the weights into plain
ones, and a run says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.errors import UserError, as_expected, unknown
from probes.files import read_json

# What reads a kind: the module that is looked for, and the package that brings it.
READERS = {
    "aqlm": {"aqlm": "aqlm"},
    "awq": {"gptqmodel": "gptqmodel"},
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "gptq": {"optimum.gptq": "optimum", "gptqmodel": "gptqmodel"},
    "hqq": {"hqq": "hqq"},
    "quanto": {"optimum.quanto": "optimum-quanto"},
    "torchao": {"torchao": "torchao"},
}
LLM_INT8_THRESHOLD = 6.0  # where a configuration has none


@dataclass(frozen=True)
class Stored:
    """How a model's files hold its weights, where not as plain numbers.

    Args:
        kind: as its configuration names it, like `fp8`.
        bits: of a weight, where the configuration says.
        outliers: the activation from which on LLM.int8 (2208.07339) leaves a feature out of the 8-bit products, of all
            tokens of a batch once one of them reaches it, so that a token hangs on the others there; 0: none does.
    """

    kind: str
    bits: int | None = None
    outliers: float = 0

    def described(self, lm: PreTrainedModel) -> str:
        """For the record of a run: what the weights are, and what is computed with them."""
        name = f"{self.kind} {self.bits}-bit" if self.bits else self.kind
        how = "computed in" if quantised(lm) else "read into plain weights in"
        mixed = f", by the largest of all its batch (llm_int8_threshold {self.outliers:g})" if self.outliers else ""
        return f"{name}, {how} {str(lm.dtype).removeprefix('torch.')}{mixed}"


def quantised(lm: PreTrainedModel) -> bool:
    """Whether its weights are held in fewer bits now."""
    return getattr(lm, "hf_quantizer", None) is not None


def stored(place: Path, name: str) -> Stored | None:
    """What the configuration of a folder says; None: plain weights.

    Raises:
        UserError: a kind that `transformers` does not know, or whose reader is not installed.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    about: Any = read_json(place / "config.json", "fetch or save the model again").get("quantization_config")
    if not about:
        return None
    if not isinstance(about, dict):
        raise UserError(f"the quantization_config of {name!r} is no object; fetch or save the model again")
    kind = str(about.get("quant_method", ""))
    bits = about.get("bits") or (4 if about.get("load_in_4bit") else 8 if about.get("load_in_8bit") else None)
    if kind != "bitsandbytes" and kind not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise unknown(f"quantisation of {name!r},", kind, AUTO_QUANTIZATION_CONFIG_MAPPING)
    missing = [package for module, package in READERS.get(kind, {}).items() if not _there(module)]
    if missing:
        raise UserError(
            f"{name!r} holds weights quantised by {kind}, read by {' and '.join(missing)}, not installed here; "
            f"run pip install {' '.join(missing)}, or give the model that is not quantised"
        )
    if kind != "bitsandbytes" or bits != 8:
        return Stored(kind, bits)
    with as_expected(f"llm_int8_threshold of {name!r}", "fetch or save the model again"):
        return Stored(kind, bits, float(about.get("llm_int8_threshold", LLM_INT8_THRESHOLD)))


@contextmanager
def reading_of(name: str, kind: Stored | None) -> Iterator[None]:
    """What `transformers` raises where it cannot read quantised weights here, in one line.

    Raises:
        UserError: that.
    """
    try:
        yield
    except (ImportError, RuntimeError, ValueError, NotImplementedError, AssertionError) as error:
        if kind is None or isinstance(error, UserError):
            raise
        first = " ".join(str(error).split("\n")[0].split())
        raise UserError(
            f"{name!r} holds weights quantised by {kind.kind}, which cannot be read here "
            f"({first or type(error).__name__}); install what reads them, use a GPU (--device cuda), or give the model "
            "that is not quantised"
        ) from error


def cast_plain(lm: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring weights that were read into plain ones to the dtype that was asked for, not that of their scales."""
    kept = [*(lm._keep_in_fp32_modules or ()), *(lm._keep_in_fp32_modules_strict or ())]
    for name, parameter in lm.named_parameters():
        if parameter.is_floating_point() and not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
