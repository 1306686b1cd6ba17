"""Training a sparse autoencoder on cached activations (`probes.sae.cache`): SAELens's module and loss in our own loop.

SAELens's training classes: TopK with the auxiliary loss for dead latents (arXiv 2406.04093), BatchTopK (2412.06410),
JumpReLU (2407.14435), ReLU with an L1 penalty. The order of the data is a function of (seed, epoch), so weights,
moments and the steps since each latent fired are the whole state, one safetensors file: what was interrupted ends at
the same bits on a CPU.

Departures from SAELens's trainer: no pickle; b_dec begins at the mean activation; one factor, folded into the saved
weights, brings the mean norm to √d_model; the threshold of BatchTopK is that of the last weights (`_settle`). What is
saved is the folder of SAELens's inference class.
"""

from __future__ import annotations

import importlib
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import UserError, above, as_expected, at_least, unknown
from probes.files import make_folder
from probes.namings import name_of
from probes.sae.autoencoder import CONFIG, WEIGHTS, save_sealed
from probes.sae.cache import Cached
from probes.sae.config import read_config
from probes.sealed import check_tensors_file, save_tensors

ARCHITECTURES = ("topk", "batchtopk", "jumprelu", "standard")
STATE = "training.safetensors"
CONTROL = "control"  # the folder of a training on noise, beside the SAE
BEGUN = ("activations", CONTROL, f".{STATE}.part")  # what may lie in a folder before the first state
MOMENTS = ("exp_avg", "exp_avg_sq")
LOOK, LOOKS = 16, {"cpu": 1}  # steps between two looks at the losses, for each of which a GPU would be waited for
BATCHES = 100  # that the threshold of BatchTopK is the mean of
FREE = 0.5  # of a GPU's free memory that the activations may take, to lie there


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        architecture: one of `ARCHITECTURES`.
        d_sae: latents; 0 stands for four times d_model.
        k: latents that are kept a token (`topk`), on average (`batchtopk`), or aimed at (`jumprelu`); of `standard`
            it says nothing.
        epochs: passes over all tokens.
        batch: tokens of a step.
        lr: of Adam, after a linear rise over `warmup` steps (a tenth of all at most), and before a linear fall to 0
            over the last fifth.
        warmup: steps.
        dead_after: steps without firing after which a latent counts as dead.
        sparsity: the coefficient of the sparsity loss (`jumprelu`: L0 about k; `standard`: L1).
        clip: the largest norm of the gradient.
        autocast: matrix products in bf16: faster where the processor has them.
        seed: of the first weights and of the order of the data.

    Raises:
        UserError: a value out of range, an unknown architecture.
    """

    architecture: str = "topk"
    d_sae: int = 0
    k: int = 32
    epochs: int = 4
    batch: int = 1024
    lr: float = 1e-3
    warmup: int = 100
    dead_after: int = 200
    sparsity: float = 1.0
    clip: float = 1.0
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise unknown("architecture", self.architecture, ARCHITECTURES)
        at_least(self, 1, "k", "epochs", "batch", "dead_after")
        at_least(self, 0, "d_sae", "warmup", "seed")
        above(self, 0, "lr", "clip", "sparsity")
        if self.architecture != "standard" and self.d_sae and self.d_sae < self.k:
            raise UserError(f"{self.d_sae} latents and k = {self.k} were given; give at least as many latents as k")

    def sized(self, d_model: int) -> Recipe:
        """The same with its number of latents written out."""
        return replace(self, d_sae=self.d_sae or 4 * d_model)

    def steps(self, tokens: int) -> int:
        return self.epochs * (tokens // self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step."""
        rise = (step + 1) / max(1, min(self.warmup, steps // 10))
        return self.lr * min(1.0, rise, 5 * (steps - step) / steps)


class Point(NamedTuple):
    """One step of a training curve: the loss, the explained variance of its batch, the fraction of dead latents."""

    loss: float
    explained_variance: float
    dead: float


@runtime_checkable
class OnStep(Protocol):
    """What a caller sees of each step of a training."""

    def __call__(self, step: int, loss: float, tokens_per_second: float) -> None: ...


def made_of(recipe: Recipe, d_model: int, about: dict[str, Any], half: bool = True) -> dict[str, Any]:
    """What decides an SAE, as its `cfg.json` keeps it: `about`, precision and recipe."""
    made: dict[str, Any] = json.loads(json.dumps({**about, "half": half, "recipe": asdict(recipe.sized(d_model))}))
    return made


def standing(folder: Path, made: dict[str, Any]) -> bool:
    """Whether a folder holds the SAE that `made` describes, finished; False where it is to be begun or resumed.

    Raises:
        UserError: the folder holds another SAE or another training.
    """
    if (folder / CONFIG).is_file():
        found = (read_config(folder / CONFIG).get("metadata") or {}).get("made")
        if found is None:
            raise UserError(f"{str(folder)!r} holds an SAE that was not trained here; give another folder")
        _same(folder, found, made)
        return True
    if (folder / STATE).is_file():
        _same(folder, _header(folder / STATE)["made"], made)
    elif folder.is_dir() and (others := [p.name for p in sorted(folder.iterdir()) if p.name not in BEGUN]):
        raise UserError(f"{str(folder)!r} holds {others[0]!r} and no SAE; give another folder")
    return False


def tidy(folder: Path) -> None:
    """Remove the state of a training that is finished: it may have been stopped before it did so itself."""
    for place in (folder, folder / CONTROL):
        if (place / CONFIG).is_file():
            (place / STATE).unlink(missing_ok=True)


def _same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found != wanted:
        old, new = {**found, **found["recipe"]}, {**wanted, **wanted["recipe"]}
        changed = [k for k in {**old, **new} if k != "recipe" and old.get(k) != new.get(k)]
        raise UserError(f"{str(folder)!r} holds a training with another {', '.join(changed)}; give another folder")


def _header(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with as_expected(repr(str(file)), "remove it and train again"), safe_open(file, "pt") as opened:
            header: dict[str, Any] = json.loads(opened.metadata()["state"])
    except SafetensorError as error:
        raise UserError(f"{str(file)!r} is broken ({error}); remove it and train again") from error
    return header


def train(
    cached: Cached,
    recipe: Recipe,
    folder: Path,
    *,
    about: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    half: bool = True,
    device: torch.device | str = "cpu",
    save_every: float = 60.0,
    on_step: OnStep | None = None,
) -> Path:
    """Train an SAE and save it as SAELens does; the same call resumes what was interrupted.

    Args:
        cached: what it is trained on.
        recipe: how.
        folder: for the SAE, and for the state until it is finished. A finished one is left as it is.
        about: what else decides the result, as JSON; kept in `cfg.json` beside the recipe.
        metadata: more for `cfg.json` (SAELens reads `model_name`).
        half: save matrices in 16 bits, whichever kind of float is nearer.
        device: to train on.
        save_every: seconds between two states.
        on_step: called after each step.

    Returns:
        The folder.

    Raises:
        UserError: another training's folder, fewer tokens than a batch, a loss that is not finite, no SAELens.
    """
    recipe = recipe.sized(len(cached.mean))
    made = made_of(recipe, len(cached.mean), about, half)
    if standing(folder, made):
        return folder
    steps = recipe.steps(len(cached))
    if not steps:
        raise UserError(
            f"{len(cached)} tokens are left to train on and a batch has {recipe.batch}; "
            "give more tokens or a smaller batch"
        )
    sae = _new(cached.mean * cached.scale, recipe, device)
    optimiser = torch.optim.Adam(sae.parameters(), lr=recipe.lr, fused=True)
    silent = torch.zeros(recipe.d_sae, dtype=torch.long, device=sae.device)  # steps since each latent fired
    wanted = {"made": made, "activations": cached.digest}
    curve = _load_state(folder / STATE, wanted, sae, optimiser, silent)
    held = _on_device(cached, sae.device)
    look = LOOKS.get(sae.device.type, LOOK)
    saved = began = time.monotonic()
    order, epoch = torch.empty(0), -1
    ahead: list[Tensor] = []  # points of steps that were not looked at yet
    for step in range(len(curve), steps):
        now, at = divmod(step, steps // recipe.epochs)
        if now != epoch:
            epoch = now
            drawn = np.random.default_rng([recipe.seed, epoch]).permutation(len(cached))
            order = torch.from_numpy(drawn).to("cpu" if held is None else held.device)
        chosen = order[at * recipe.batch : (at + 1) * recipe.batch]
        x = (cached.rows(chosen).to(sae.device) if held is None else held[chosen].float()) * cached.scale
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step, steps)
        ahead.append(_update(sae, optimiser, x, silent, recipe, step, steps))
        if len(ahead) < look and step + 1 < steps:
            continue
        points, ahead = [Point(*values) for values in torch.stack(ahead).tolist()], []
        speed = recipe.batch * len(points) / (time.monotonic() - began)
        for number, point in enumerate(points, len(curve)):
            if not math.isfinite(point.loss):
                raise UserError(f"step {number}: loss {point.loss}; give a smaller learning rate than {recipe.lr:g}")
        curve += points
        if time.monotonic() - saved >= save_every:
            _save(folder / STATE, wanted, sae, optimiser, silent, curve)
            saved = time.monotonic()
        for number, point in enumerate(points, len(curve) - len(points)):
            if on_step is not None:
                on_step(number, point.loss, speed)
        began = time.monotonic()
    if not (folder / STATE).is_file():  # by it the folder is known as ours, should the next lines be interrupted
        _save(folder / STATE, wanted, sae, optimiser, silent, curve)
    if recipe.architecture == "batchtopk":
        _settle(sae, cached, recipe)
    _finish(sae, cached, folder, made, metadata or {}, curve)
    (folder / STATE).unlink(missing_ok=True)
    return folder


def saelens() -> Any:
    """The library, imported when it is needed: it is slow, and warns.

    Raises:
        UserError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("sae_lens")
        except ImportError as error:
            raise UserError(f"training an SAE needs SAELens ({error}); pip install 'sae-lens>=6.54,<7'") from error


def trial_step(recipe: Recipe, d_model: int, device: torch.device | str) -> Callable[[], Tensor]:
    """A step of such a training on noise, to be taken again and again and timed."""
    recipe = recipe.sized(d_model)
    sae = _new(torch.zeros(d_model), recipe, device)
    optimiser = torch.optim.Adam(sae.parameters(), lr=recipe.lr, fused=True)
    silent = torch.zeros(recipe.d_sae, dtype=torch.long, device=sae.device)
    x = torch.randn(recipe.batch, d_model, generator=torch.Generator().manual_seed(0)).to(sae.device)
    return lambda: _update(sae, optimiser, x, silent, recipe, 0, 1)


def _new(b_dec: Float[Tensor, " d_model"], recipe: Recipe, device: torch.device | str) -> Any:
    """SAELens's training module with its first weights."""
    lens = saelens()
    cls, config = lens.registry.get_sae_training_class(recipe.architecture)
    special: dict[str, dict[str, Any]] = {
        "topk": {"k": recipe.k},
        "batchtopk": {"k": float(recipe.k)},
        "jumprelu": {
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": float(recipe.k),
            "l0_coefficient": recipe.sparsity,
        },
        "standard": {"l1_coefficient": recipe.sparsity},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        sae = cls(config(d_in=len(b_dec), d_sae=recipe.d_sae, **special[recipe.architecture]))
    sae.b_dec.data.copy_(b_dec)
    return sae.to(device).train()


def _on_device(cached: Cached, device: torch.device) -> Float[Tensor, "kept d_model"] | None:
    """The activations on a GPU whose memory holds them beside the training; None: they are fetched step by step, as
    noise is, which is drawn then."""
    if device.type != "cuda" or cached.drawn:
        return None
    size = len(cached) * len(cached.mean) * cached.pieces[0].element_size()
    return cached.onto(device) if size <= FREE * torch.cuda.mem_get_info(device)[0] else None


def _update(
    sae: Any, optimiser: Any, x: Tensor, silent: Tensor, recipe: Recipe, step: int, steps: int
) -> Float[Tensor, " point"]:
    """One step: the `Point` of its loss, its batch's explained variance, and the fraction of dead latents before it."""
    ramp = min(1.0, (step + 1) / max(1, steps // 10))
    coefficients = {name: float(getattr(c, "value", c)) * ramp for name, c in sae.get_coefficients().items()}
    dead = silent > recipe.dead_after
    given = saelens().saes.sae.TrainStepInput(
        sae_in=x, coefficients=coefficients, dead_neuron_mask=dead, n_training_steps=step, is_logging_step=False
    )
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.autocast):
        out = sae.training_forward_pass(given)
    out.loss.backward()
    nn.utils.clip_grad_norm_(sae.parameters(), recipe.clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        silent += 1
        silent.masked_fill_((out.feature_acts != 0).any(0), 0)
        error = (out.sae_out - x).square().sum()
        explained = 1 - error / (x - x.mean(0)).square().sum()
    return torch.stack([out.loss.detach().double(), explained.double(), dead.double().mean()])


def _save(
    file: Path,
    wanted: dict[str, Any],
    sae: Any,
    optimiser: Any,
    silent: Tensor,
    curve: Sequence[Point],
) -> None:
    """One file: weights, moments, silent steps and the curve; in its header what they belong to."""
    tensors = {f"weight/{name}": t for name, t in sae.state_dict().items()}
    for name, p in sae.named_parameters():
        tensors |= {f"{key}/{name}": optimiser.state[p][key] for key in MOMENTS}
    tensors |= {"silent": silent, "curve": torch.tensor(curve, dtype=torch.float64)}
    make_folder(file.parent)
    save_tensors({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, file, state=json.dumps(wanted))


def _load_state(file: Path, wanted: dict[str, Any], sae: Any, optimiser: Any, silent: Tensor) -> list[Point]:
    """Load what was saved, if anything; the curve so far."""
    if not file.is_file():
        return []
    if _header(file) != wanted:
        raise UserError(f"{str(file.parent)!r} holds a training on other activations; give another folder")
    check_tensors_file(file, repr(str(file)), "remove it and train again")
    from safetensors.torch import load_file

    held = {name: t.clone() for name, t in load_file(file).items()}
    curve = [Point(*values) for values in held["curve"].tolist()]
    sae.load_state_dict({name.removeprefix("weight/"): t for name, t in held.items() if name.startswith("weight/")})
    silent.copy_(held["silent"])
    for name, p in sae.named_parameters():
        moments = {key: held[f"{key}/{name}"].to(p.device) for key in MOMENTS}
        optimiser.state[p] = {"step": torch.tensor(float(len(curve)), device=p.device), **moments}
    return curve


@torch.no_grad()
def _settle(sae: Any, cached: Cached, recipe: Recipe) -> None:
    """The threshold of BatchTopK, by which activations are kept where there is no batch (arXiv 2412.06410, section 2):
    the smallest one that a batch keeps, in the mean over batches.

    SAELens has a running mean that begins at 0 and goes a hundredth of the way in each step, so that what a hundred
    steps trained fired several times as often as it was trained to.
    """
    drawn = np.random.default_rng([recipe.seed, recipe.epochs]).permutation(len(cached))
    whole = torch.from_numpy(drawn[: len(drawn) // recipe.batch * recipe.batch])
    least: list[float] = []
    for chosen in whole.split(recipe.batch)[:BATCHES]:
        acts = sae.encode(cached.rows(chosen).to(sae.device) * cached.scale)
        kept = acts[acts > 0]
        if kept.numel():
            least.append(float(kept.min()))
    if least:
        sae.topk_threshold.fill_(float(np.mean(least)))


@torch.no_grad()
def _finish(
    sae: Any,
    cached: Cached,
    folder: Path,
    made: dict[str, Any],
    metadata: dict[str, Any],
    curve: Sequence[Point],
) -> None:
    """Save the inference class; `cfg.json`, by which a folder counts as finished, comes last."""
    from safetensors.torch import load_file

    lens = saelens()
    sae.eval().to("cpu")
    sae.fold_activation_norm_scaling_factor(cached.scale)
    if made["recipe"]["architecture"] in ("jumprelu", "standard"):
        sae.fold_W_dec_norm()  # the others fold it as they are saved
    with TemporaryDirectory() as scratch:
        part = Path(scratch)
        sae.save_inference_model(part)
        weights = {name: t.clone() for name, t in load_file(part / WEIGHTS).items()}
        config = json.loads((part / CONFIG).read_text(encoding="utf-8"))
    if made["half"]:
        weights = {name: _halved(t) if t.ndim == 2 else t for name, t in weights.items()}
    late = np.array(curve[-max(1, len(curve) // 20) :]).mean(0)
    config["metadata"] |= {
        **metadata,
        "hook_name": name_of(cached.site, "sae-lens"),
        "made": made,
        "activations": cached.facts,
        "training": {"steps": len(curve), **Point(*late.tolist())._asdict()},
        "versions": {"sae_lens": lens.__version__, "torch": torch.__version__},
    }
    save_sealed(make_folder(folder), config, weights)


def _halved(w: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """In the 16-bit float that loses least: fp16 has more digits, bf16 more range."""
    return min(
        (w.to(kind) for kind in (torch.float16, torch.bfloat16)),
        key=lambda low: float((low.float() - w).square().sum()),
    )
