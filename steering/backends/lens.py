"""The same plans through TransformerLens: hook points of a `TransformerBridge`, on a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from probes.batching import left_pad
from probes.clock import KEYS_AND_VALUES, Clock, cache_argument
from probes.errors import UserError
from probes.namings import name_of
from probes.sites import Site, is_paused
from steering.backends import Claims, Rows, check_lengths
from steering.backends.huggingface import per_text
from steering.delivery import Delivery
from steering.editor import Editor
from steering.hooks import Session, check_plan

BY_BRIDGES = "past_key_values"  # what attention of transformer-lens up to 4.3 is given its cache as
SAME, SAME_HALF = 1e-3, 0.1  # of the logits' standard deviation, in fp32 and in half precision


class TransformerLens:
    """Plans on a `TransformerBridge` of a model.

    A bridge rewraps the module that it is given in place, so it is given a copy: memory for a second model. Its
    weights stay as they are (no layer-norm folding, no centring); attention is the bridge's own.

    Args:
        lm: a causal LM of `transformers`; it is left as it is, and what is attached to it later is not seen.
        tokenizer: the bridge asks for one; a copy is given, and only ids are ever passed.

    Raises:
        UserError: transformer-lens is not installed, or has no adapter for the architecture, or computes something else
            than the model; quantised weights.
    """

    name = "transformer-lens"
    claims = Claims()

    def __init__(self, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        try:
            from transformer_lens.model_bridge import TransformerBridge
            from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
        except ImportError as error:
            raise UserError(
                "the transformer-lens backend needs transformer-lens, which is not installed; "
                "run pip install 'transformer-lens>=3.9'"
            ) from error
        if getattr(lm, "hf_quantizer", None) is not None:
            raise UserError("TransformerLens is not tried on quantised weights; use the hf backend, or plain weights")
        self.lm = lm
        self.delivery = Delivery()
        own = copy.deepcopy(lm)
        own.config.architectures = [type(lm).__name__]  # what adapters are chosen by; unset in models made in code
        if own._supports_attention_backend:
            own.set_attn_implementation("eager")  # whose mask is of numbers, as the bridge expects it
        try:
            with _without_processor():
                self.bridge = TransformerBridge.boot_transformers(
                    lm.name_or_path or lm.config.model_type,
                    hf_model=own,
                    tokenizer=_offline(tokenizer),
                    device=lm.device,
                    dtype=lm.dtype,
                )
        except ValueError as error:
            raise UserError(
                f"TransformerLens cannot wrap {type(lm).__name__} ({str(error).split('.')[0]}); use the hf backend"
            ) from error

        if cache_argument(lm) != BY_BRIDGES:
            for module in self.bridge.modules():
                if isinstance(module, AttentionBridge):
                    module.register_forward_pre_hook(_cache_named, with_kwargs=True)
        self._check_same()

    @torch.no_grad()
    def _check_same(self) -> None:
        """Hold the bridge, unsteered, to the model it is of."""
        off = self._off(self.bridge(self._tried, use_cache=False))
        if off:
            raise UserError(
                f"TransformerLens computes other logits for {type(self.lm).__name__} than the model itself (off by "
                f"{off:.2g} of their standard deviation); use the hf backend"
            )

    @torch.no_grad()
    def check_steps(self) -> None:
        """Hold its steps from a cache to the model.

        Raises:
            UserError: they compute something else.
        """
        lm, name = self.bridge.original_model, cache_argument(self.lm)
        if name not in KEYS_AND_VALUES:
            return
        cache = {name: DynamicCache(config=self.lm.config), "use_cache": True}
        off = self._off(torch.cat([lm(input_ids=part, **cache).logits for part in self._tried.split([2, 1], 1)], 1))
        if off:
            raise UserError(
                f"TransformerLens's steps from a cache are not those of {type(self.lm).__name__} with transformers "
                f"{transformers.__version__} (off by {off:.2g} of the logits' standard deviation); use the hf engine, "
                "or transformers 5.23"
            )

    @property
    def _tried(self) -> Int[Tensor, "1 3"]:
        """The text that both are tried on."""
        return torch.tensor([[1, 2, 3]], device=self.lm.device)

    def _off(self, given: Float[Tensor, "1 3 vocab"]) -> float:
        """How far logits are from the model's own, of their standard deviation; 0 within its precision."""
        wanted = self.lm(input_ids=self._tried, use_cache=False).logits.float()
        off = float((given.float() - wanted).square().mean().sqrt() / wanted.std().clamp(min=1e-6))
        return 0.0 if off <= (SAME if self.lm.dtype == torch.float32 else SAME_HALF) else off  # NaN is off

    @torch.no_grad()
    def score(self, rows: Rows) -> list[Float[Tensor, "pos vocab"]]:
        check_lengths(self.lm, rows, self.name)
        ids, mask, positions = left_pad(rows.texts, self.lm.device)
        with self.steered(rows):
            logits = self.bridge(ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)
        return per_text(logits, rows.texts)

    @contextmanager
    def steered(self, rows: Rows) -> Iterator[Session]:
        """Hooks at the plans' sites for as long as the context is open; `delivery` after it."""
        self.claims.check(self.name, rows)
        for plan in rows.plans:
            check_plan(self.lm, plan)
        editor = Editor(rows.plans, rows.of_row, self.lm.device)
        names = {site: name_of(site, "transformer-lens") for site in editor.sites}
        for site, name in names.items():
            if name not in self.bridge.hook_dict:  # the bridge's own `hooks` passes over unknown names in silence
                raise UserError(f"TransformerLens gives {type(self.lm).__name__} no {site}; use the hf backend")
        clock = Clock(self.bridge.original_model, rows.lengths)
        try:
            with self.bridge.hooks([(name, _hook(editor, clock, site)) for site, name in names.items()]):
                yield Session(editor, clock)
        finally:
            clock.remove()
        self.delivery = editor.delivery()


def _hook(editor: Editor, clock: Clock, site: Site) -> Callable[..., Tensor | None]:
    def at_site(h: Tensor, hook: Any) -> Tensor | None:  # the bridge passes its hook point by this name
        if is_paused(clock.lm):
            return None
        assert clock.frame is not None
        return editor.edit(site, h, clock.frame)

    return at_site


def _cache_named(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What transformers 5.24 calls `cache`, under the name by which a bridge looks for it; it finds none otherwise
    (findings/transformer-lens-cached-steps-alone.sh)."""
    return given, {BY_BRIDGES if key == "cache" else key: value for key, value in named.items()}


@contextmanager
def _without_processor() -> Iterator[None]:
    """No processor of images is looked for: where transformer-lens 3.9.0 finds none it installs torchvision into the
    running environment, and with it another torch. Only ids are ever passed here."""
    own = AutoProcessor.__dict__["from_pretrained"]
    AutoProcessor.from_pretrained = staticmethod(lambda *_, **__: None)  # type: ignore[method-assign]
    try:
        yield
    finally:
        AutoProcessor.from_pretrained = own  # type: ignore[method-assign]


def _offline(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that the bridge takes as it is, where it would load another by name to have its BOS token added."""
    own = copy.deepcopy(tokenizer)
    own.init_kwargs = {"name_or_path": "", **own.init_kwargs, "add_bos_token": True}
    return own
