"""`critique-ft`: train on critiques of the model's own solutions (arXiv 2501.17703; of one problem, 2506.03295).

The base answers one problem (or many) of the fit split again and again; a critic says of each candidate whether it is
right and where it goes wrong; a LoRA adapter is trained to say the same: maximise
log P(critique | question, candidate), the loss on the critique alone. What is evaluated is the adapter on the bare
prompt, on other items.

Where the papers are silent or differ:
- The critic is symbolic unless another is named (`elicit.methods.critique_ft.critic`); the papers' are strong models.
- All candidates come from the base; the papers take ten generators, or what stands in a data set.
- The last step's adapter is taken: no held-out items choose among checkpoints (the papers use 500).
- A LoRA adapter; the papers train all weights (learning rate 5e-6, 50 epochs on 600 rows), as `rank=0` does.
- What is trained ends its answers with a verdict on them, as its critiques do; the answer ends there (`Prompt.ends`),
  or a number in the verdict would be read as the answer.
- Question, candidate and instruction are put as questions are put when the model is evaluated: the authors' text in
  the chat template, or after `Q:`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.description import SIGNAL, signal
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import Work, check_own
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.critique_ft.critic import VERDICT
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items
from elicit.training import trl_common

NAME = "critique-ft"
SUMMARY = "train on critiques of the model's own solutions"
PAPER = "2501.17703"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
QUICK = {"candidates": 60}
CONTROLS = ("shuffled", "solutions", "untruthful", "unrelated")


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    source: str | Callable[..., Any] = "symbolic",
    problems: int = 1,
    candidates: int = 100,
    first: int = 0,
    ask: str = "both",
    targets: str = "critiques",
    temperature: float = 1.0,
    steps: int = 40,
    lr: float = 5e-4,
    rank: int = 8,
    rows: int = 2,
    width: int = 512,
    checkpointing: bool = False,
    save_every: int = 0,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
    trainer: str = "own",
    trl: dict[str, Any] = trl_common.NOTHING,
) -> Elicited:
    """Sample candidates on fit items, have them criticised, train an adapter on the critiques.

    Args:
        model: the base; it is what it was afterwards.
        items: of a task; its fit split alone is used.
        progress: reports problems and training steps.
        source: `symbolic`, `model` (the base), `model:NAME`, a JSON Lines file of critiques, or from Python any
            function `(item, candidate) -> Critique`.
        problems: how many; 0 takes all of the fit split, or of the file.
        candidates: different ones a problem, at most.
        first: the number of the first problem.
        ask: how candidates are asked for: `plain`, `think`, or `both`.
        targets: what is learned: `critiques`, or for a control `shuffled`, `solutions`, `untruthful`, `unrelated`.
        temperature: of the candidates.
        steps, lr, rank, rows, width: of the training (`elicit.training.Recipe`); rows of `width` tokens a step; rank 0
            trains all weights.
        checkpointing: keep only each layer's input for the backward pass and compute the rest again: the same gradients
            for less memory.
        save_every: steps between two savings of what is trained, each a handle of its own then
            (`elicit.training.saved.saved_steps`, `elicit analyse saved-steps`); 0: none.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.
        trainer, trl: what trains (`elicit.training.trl_common.TRAINERS`), and TRL's own options where that does.

    Raises:
        UserError: no items, an unknown source, a broken file, no usable row.
    """
    from elicit.methods.critique_ft import pipeline

    named = source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)
    options = pipeline.Fitting(
        named,
        problems,
        candidates,
        first,
        ask,
        targets,
        temperature,
        steps,
        lr,
        rank,
        rows,
        width,
        max_new_tokens,
        seed,
        trainer,
        trl,
        save_every,
        checkpointing,
    )
    put = prompt_for(model, prompt, items)
    fitted = pipeline.fit(model, items, put, options, None if isinstance(source, str) else source, progress)
    kept: dict[str, Any] = {
        "prompt": prompt,
        "asked": options.kept(),
        "found": fitted.record,
        SEEN: seen(fitted.record["problems"]),
    }
    if "bits" in fitted.record:
        kept[SIGNAL] = signal(f"{targets}, each before it was trained on", fitted.record["bits"])
    answering = replace(put, ends=(VERDICT,))
    return Elicited(model, NAME, answering, Greedy(max_new_tokens), adapter=fitted.adapter, options=kept)


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The candidates, as long as answers that are asked to think, and the training."""
    from elicit.methods.critique_ft.pipeline import Fitting

    asked = {k: v for k, v in options.items() if k not in ("trainer", "prompt", "source")}
    fitting = Fitting(str(options["source"]), engine=options["trainer"], **asked)
    put = prompt_for(model, options["prompt"], items).thinking()
    one = Elicited(model, NAME, put, Greedy(options["max_new_tokens"]))
    problems = options["problems"] or len(items.task.split("fit"))
    beside = "" if options["source"] == "symbolic" else "what the critic takes is not in it"
    return Work(
        one, [(one, problems * options["candidates"])], fitting.recipe(), (len(CONTROLS) + 4, len(CONTROLS)), beside
    )


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The same training with other targets, and what needs no training.

    Critiques shuffled among candidates, right solutions alone (supervised fine-tuning), an untruthful critic, everyday
    text; direct and chain-of-thought, plain and with the same tokens.

    Raises:
        UserError: a handle of another method, or one whose source was a function.
    """
    check_own(handle, NAME)
    out = plain(handle, items)
    asked = {**handle.options["asked"], "prompt": handle.options["prompt"]}
    asked["trainer"] = asked.pop("engine")  # the record's word
    for kind in CONTROLS:
        other = fit(handle.model, items, progress, **{**asked, "targets": kind})
        out[kind] = replace(other, method=kind, options={k: v for k, v in other.options.items() if k == SIGNAL})
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was trained on, what the critic is worth, and how the loss went."""
    found, asked = options["found"], options["asked"]
    agreed = f"; it agrees with the grader on {found['agree']} of {found['graded']}" if found["graded"] else ""
    trained = f"A LoRA adapter of rank {asked['rank']}" if asked["rank"] else "All weights"
    left = f" Left out: {found['without_conclusion']} critiques without a conclusion, {found['too_long']} too long."
    return [
        f"{found['rows']} candidates of {len(found['problems'])} problems, {found['held_right']} graded correct by "
        f"{found['source']}{agreed}.{left if found['without_conclusion'] + found['too_long'] else ''}",
        f"Targets: {asked['targets']}. {trained}, {asked['steps']} steps, "
        f"{found['trained_tokens']} tokens; loss {found['curve'][0]:.2f} to {found['curve'][-1]:.2f} nats a token.",
    ]


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training curve, and the first candidates with what was said of them."""
    import plotly.graph_objects as go

    from probes.figures import styled, table

    curve = options["found"]["curve"]
    figure = go.Figure(go.Scatter(x=list(range(len(curve))), y=curve, mode="lines", name="loss"))
    figure.update_layout(xaxis_title="step", yaxis_title="nats a target token")
    return [
        ("Training", "Mean loss over the targets of a step.", styled(figure)),
        "<h2>Some candidates and their critiques</h2>",
        table(("question", "candidate", "critique"), options["found"]["shown"], prose=True),
    ]
