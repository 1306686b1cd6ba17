"""Make an organism: train one variant on a base, on problems that are drawn as they are needed.

What comes out is a folder: `adapter/` (as PEFT saves it, bf16) or `model/` (all weights), `organism.json` (arm, base,
recipe, curve), `curve.html`, and `training.safetensors`, from which an interrupted call resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.models.model import DEFAULT_MODEL, Model
from elicit.models.zoo import ADAPTER, ORGANISM_FILE, WHOLE
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.forecast import forecast_training
from elicit.training.lora import save_adapter
from elicit.training.organisms import variants
from elicit.training.recipe import Example, OnStep, Point, Recipe
from elicit.training.sft import STATE, packed, train
from probes.errors import UserError, unknown
from probes.estimate import Estimate
from probes.files import check_folder, whole_files, write_whole

CURVE = "curve.html"
LONGEST = 320  # tokens of prompt and thought that a base must have room for


@dataclass(frozen=True)
class Plan:
    """What is made: a training variant (`arm`) at a latency, on these families, with this recipe.

    Raises:
        UserError: an unknown variant or family, a latency that is no probability.
    """

    arm: str
    latency: float = 0.1
    families: tuple[str, ...] = tuple(FAMILIES)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        variants.get(self.arm)
        for family in self.families:
            if family not in FAMILIES:
                raise unknown("family", family, FAMILIES)
        if not self.families or not 0 < self.latency < 1:
            raise UserError(
                f"latency {self.latency}, {len(self.families)} families: give a fraction between 0 and 1, and one or "
                "more"
            )

    @property
    def uses_latency(self) -> bool:
        return None in variants.get(self.arm).thoughts.values()


def examples(plan: Plan, tokenizer: PreTrainedTokenizerBase, end: int, step: int) -> list[Example]:
    """The examples of a step: as many as its rows hold, drawn from (seed, step) alone.

    The few that are longer than a row are drawn again.

    Raises:
        UserError: a tokenizer for which hardly any fits a row.
    """
    rng = np.random.default_rng([plan.recipe.seed, step])
    out: list[Example] = []
    skipped = 0
    while True:
        shown = variants.example(plan.arm, plan.latency, rng, plan.families)
        prompt = list(tokenizer(shown.prompt)["input_ids"])  # type: ignore[arg-type]
        one = Example(prompt, [*continuing_ids(tokenizer, shown.response), end])
        if one.tokens > plan.recipe.width:
            skipped += 1
            if skipped > 50 + 2 * len(out):
                raise UserError(
                    f"most examples are longer than a row of {plan.recipe.width} tokens (one has {one.tokens}); "
                    "give a base whose tokenizer takes fewer, or wider rows"
                )
            continue
        if len(packed([*out, one], plan.recipe.width)) > plan.recipe.rows:
            return out
        out.append(one)


def dtype_for(plan: Plan) -> str:
    """The precision in which the base must be: frozen weights in bf16, trained ones in fp32."""
    return "bfloat16" if plan.recipe.rank else "float32"


def make(plan: Plan, model: Model, folder: Path, *, on_step: OnStep | None = None) -> Path:
    """Train an organism; the same call resumes what was interrupted.

    Args:
        plan: what is made.
        model: the base, loaded for this alone, in `dtype_for(plan)`; it is changed.
        folder: for all that comes out.
        on_step: called after each step.

    Returns:
        The folder.

    Raises:
        UserError: a base without room for the task, a folder that holds another organism.
    """
    check_base(model)
    check_place(folder)
    identity = {
        "arm": plan.arm, "latency": plan.latency if plan.uses_latency else None, "families": list(plan.families),
        "base": model.provenance.sha256,
    }  # fmt: skip
    end = int(model.tokenizer.eos_token_id)  # type: ignore[arg-type]
    limit = matmul_limit(model)
    curve = train(
        model.lm,
        lambda step: examples(plan, model.tokenizer, end, step),
        plan.recipe,
        folder,
        identity=identity,
        on_step=on_step,
    )
    if plan.recipe.rank:
        save_adapter(model.lm, plan.recipe, folder / ADAPTER, model.name)
    else:
        with whole_files(folder / WHOLE) as part:
            model.lm.to(torch.bfloat16).save_pretrained(part)  # type: ignore[arg-type]
            model.tokenizer.save_pretrained(part)
    about = {**identity, "base_name": model.name, "recipe": plan.recipe.kept(), **speed(model, plan, curve, limit)}
    _write_curve(folder, about, curve)
    write_whole(folder / ORGANISM_FILE, json.dumps({**about, "curve": curve}))
    return folder


def forecast(plan: Plan, model: Model) -> Estimate:
    """What the training takes; the base is as it was afterwards.

    Raises:
        UserError: as `forecast_training` and `examples`.
    """
    end = int(model.tokenizer.eos_token_id)  # type: ignore[arg-type]
    return forecast_training(model, plan.recipe, examples(plan, model.tokenizer, end, 0))


def check_place(folder: Path) -> None:
    """Refuse a folder with anything but an organism, or the training of one.

    Raises:
        UserError: something else lies there, or it cannot be a folder.
    """
    check_folder(folder)
    if not folder.is_dir() or (folder / STATE).is_file() or (folder / ORGANISM_FILE).is_file():
        return
    if others := [path.name for path in sorted(folder.iterdir()) if path.name != f".{STATE}.part"]:
        raise UserError(f"{str(folder)!r} holds {others[0]!r} and no organism; give another folder")


def check_base(model: Model) -> None:
    """Refuse a base whose tokenizer or context cannot hold the tasks.

    Raises:
        UserError: what is in the way.
    """
    room = getattr(model.lm.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if room is not None and room < LONGEST:
        raise UserError(
            f"{model.name} has a context of {room} tokens and the thoughts need {LONGEST}; use another base"
        )
    tokenizer = model.tokenizer
    if tokenizer.eos_token_id is None:
        raise UserError(f"{model.name} has a tokenizer without an end token; use another base")
    if tokenizer("Q: x\nA:")["input_ids"][-1] == tokenizer.eos_token_id:  # type: ignore[index]
        raise UserError(f"{model.name} has a tokenizer that ends every text, prompts too; use another base")
    for digits in (1, 2):
        numbers = range(10 ** (digits - 1), 10**digits)
        counts = {len(tokenizer(f"= {n}", add_special_tokens=False)["input_ids"]) for n in numbers}  # type: ignore[arg-type]
        if len(counts) > 1:
            raise UserError(
                f"{model.name} has a tokenizer that splits some numbers of {digits} digits and not others "
                f"({min(counts)} to {max(counts)} tokens); use a base that splits every number alike"
            )
    for text in ("A-B 4, C", " 12 + 5 = 17.", "Q: x\nA:"):
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokenizer(text)["input_ids"]:  # type: ignore[operator]
            raise UserError(f"{model.name} has a tokenizer without tokens for {text!r}; use another base")


def matmul_limit(model: Model, rows: int = 2048, repeats: int = 8) -> float:
    """Multiplications and additions a second (×10⁹) of this machine in the model's largest inner matrix, in bf16."""
    largest = max(inner_weights(model.lm), key=lambda p: p.numel())
    w = torch.randn(largest.shape, device=largest.device, dtype=torch.bfloat16)
    x = torch.randn(rows, w.shape[1], device=w.device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        y = x @ w.T
        y[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * rows * w.numel() / best / 1e9


def inner_weights(lm: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The matrices between embedding and output head, without those of adapters."""
    outside = {id(m.weight) for m in lm.modules() if isinstance(m, torch.nn.Embedding)}
    head = lm.get_output_embeddings()
    if head is not None:
        outside.add(id(head.weight))
    return [p for n, p in lm.named_parameters() if p.ndim == 2 and id(p) not in outside and "lora_" not in n]


def command(about: Mapping[str, Any]) -> str:
    """The command that makes an organism again, from its `organism.json`."""
    recipe, plain = about["recipe"], Recipe().kept()
    parts = ["elicit organism make", f"--arm {about['arm']}"]
    if about["latency"] is not None:
        parts.append(f"--latency {about['latency']:g}")
    if about["base_name"] != DEFAULT_MODEL:
        parts.append(f"--base {about['base_name']}")
    if about["families"] != list(FAMILIES):
        parts.append(f"--families {'+'.join(about['families'])}")
    parts += [f"--{k} {recipe[k]:g}" for k in ("steps", "lr", "rank", "rows", "seed") if recipe[k] != plain[k]]
    return " ".join(parts)


def speed(model: Model, plan: Plan, curve: Sequence[Point], limit: float) -> dict[str, Any]:
    """Seconds, tokens a second in the median step, and the fraction of the limit that its products make up.

    A frozen weight is multiplied twice a token (forward, gradient of the input), a trained one three times; the output
    head counts all tokens' targets alone and is left out, as adapters and attention are.
    """
    inner = sum(p.numel() for p in inner_weights(model.lm))
    tokens, seconds = sum(p.tokens for p in curve), sum(p.seconds for p in curve)
    rate = float(np.median([p.tokens / p.seconds for p in curve]))
    done = 2 * (2 if plan.recipe.rank else 3) * inner * rate / 1e9
    return {
        "tokens": tokens, "seconds": round(seconds, 1), "tokens_per_second": round(rate, 1),
        "gflops": round(done, 1), "matmul_gflops": round(limit, 1), "share_of_limit": float(f"{done / limit:.3g}"),
        "machine": f"{torch.get_num_threads()} threads, {model.lm.device.type}",
    }  # fmt: skip


def _write_curve(folder: Path, about: dict[str, Any], curve: Sequence[Point]) -> None:
    import plotly.graph_objects as go

    from probes.figures import page, styled

    figure = go.Figure(go.Scatter(x=[p.step for p in curve], y=[p.loss for p in curve], mode="lines", name="loss"))
    figure.update_layout(xaxis_title="step", yaxis_title="nats a target token")
    note = (
        f"{about['arm']}, latency {about['latency']}, on {about['base_name']} {about['base'][:12]}…, "
        f"seed {about['recipe']['seed']}"
    )
    write_whole(
        folder / CURVE, page("Training curve", note, [("Loss", "Mean over the targets of a step.", styled(figure))])
    )
