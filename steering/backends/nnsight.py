"""The same plans through nnsight: a tracing context, here or, with `remote`, on a server that holds the model (NDIF).

The block inside `with model.trace(...)` is not run where it stands: nnsight takes its source and the values it names,
and runs them interleaved with the model, in this process or on the server. What it names must therefore travel. Plans,
editor and clock do, by value: `probes` and `steering` are registered for it, and the server needs neither. Methods
travel as source; those that dataclasses write travel as bytecode, so the server must run this Python's minor version.
"""

from __future__ import annotations

import copy
import copyreg
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from probes.batching import left_pad
from probes.clock import Count
from probes.errors import UserError
from probes.namings import module_name
from probes.sites import ADDED, Site
from steering.backends import Claims, Rows, check_lengths
from steering.backends.huggingface import per_text
from steering.delivery import Delivery
from steering.editor import Editor
from steering.hooks import check_plan
from steering.interventions import Plan

# What nnsight says when all rows ended before the last step that was asked for, as they may.
STOPPED_EARLY = r".*was never reached: the loop asked for a step the run did not make"
# Fields of a generation_config by which tokens, logits or ends are others, and that `NNsight.generate` does not give;
# each with the values, beside none at all, that leave these alone.
TOUCHING: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("min_length", "min_new_tokens", "encoder_no_repeat_ngram_size", "penalty_alpha"), (0,)),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (1,)),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), (1.0,)),
    **dict.fromkeys(("remove_invalid_values", "token_healing", "is_assistant", "use_mtp"), (False,)),
    "use_cache": (True,),
    "cache_implementation": tuple(one for one in ALL_CACHE_IMPLEMENTATIONS if one != "quantized"),
    **dict.fromkeys(
        (
            "assistant_early_exit", "bad_words_ids", "begin_suppress_tokens", "constraints", "dola_layers",
            "exponential_decay_length_penalty", "force_words_ids", "forced_bos_token_id", "forced_eos_token_id",
            "max_time", "prefill_chunk_size", "prompt_lookup_num_tokens", "sequence_bias", "stop_strings",
            "watermarking_config",
        ),
        (),
    ),
}  # fmt: skip


class Generated(NamedTuple):
    """What a server sent back of greedy decoding.

    Args:
        tokens: new ones of each row; anything after a row's end.
        logits: that chose them.
        moved: how far each step's forward was moved, None where nothing acted.
        deliveries: what was done by each plan.
    """

    tokens: Int[Tensor, "rows steps"]
    logits: Float[Tensor, "rows steps vocab"]
    moved: list[Tensor | None]
    deliveries: list[Delivery]


class NNsight:
    """Plans on a `TransformersModel` of nnsight.

    Args:
        lm: a causal LM of `transformers`, whose weights are shared and whose modules are copied as they are; or a
            model's name, loaded here, or with `remote` only its configuration.
        tokenizer: nnsight asks for one; a copy is given, and only ids are ever passed. None: the model's own.
        remote: run on NDIF (True, or another server's URL), or `"local"`: packed, unpacked without the modules
            that a server lacks, and run here.

    Raises:
        UserError: nnsight is not installed.
    """

    name = "nnsight"
    claims = Claims()

    def __init__(
        self,
        lm: PreTrainedModel | str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        remote: bool | str = False,
    ) -> None:
        try:
            import nnsight
        except ImportError as error:
            raise UserError(
                "the nnsight backend needs nnsight, which is not installed; run pip install 'nnsight>=0.8'"
            ) from error
        self.remote = remote
        self.away = lm if remote and isinstance(lm, str) else ""
        self.delivery = Delivery()
        if tokenizer is None:  # nnsight 0.8 looks for it itself, and in vain with newer releases of transformers
            tokenizer = AutoTokenizer.from_pretrained(lm if isinstance(lm, str) else lm.name_or_path)
        self.model = nnsight.TransformersModel(
            lm if isinstance(lm, str) else _sharing(lm),
            tokenizer=copy.deepcopy(tokenizer),  # it is told to pad at the left
            task="text-generation",
            dispatch=not remote,
        )
        if isinstance(lm, str) and not remote:
            self.model._module.generation_config = GenerationConfig()  # as `_sharing`
        if remote:
            for package in ("probes", "steering"):
                nnsight.register(package)
            # Before Python 3.12 it holds a lock, and no class with one can be packed.
            copyreg.pickle(cached_property, _reduce_cached_property)

    @torch.no_grad()
    def score(self, rows: Rows) -> list[Float[Tensor, "pos vocab"]]:
        import nnsight

        places = self.places(rows)
        if not any(weight.is_meta for weight in self.model._module.parameters()):  # else nothing can be tried
            check_lengths(self.model._module, rows, self.name)
        ids, mask, positions = left_pad(rows.texts)
        given = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
        model, plans, of_row, lengths = self.model, rows.plans, rows.of_row, rows.lengths
        with model.trace(given, use_cache=False, remote=self.remote) as tracer:
            carrier = Carrier(places, plans, of_row, mask, lengths, model.device)
            carrier.forward(0)
            logits = nnsight.save(tracer.result.logits.detach())
            done = nnsight.save([carrier.editor.delivery().to_dict()])
        self.delivery = Delivery(**done[-1])
        return per_text(logits, rows.texts)

    @torch.no_grad()
    def generate(
        self, rows: Rows, *, max_new_tokens: int, eos_ids: Sequence[int] = (), never: Sequence[int] = ()
    ) -> Generated:
        """Go on greedily where the weights are, past the ids that are never chosen.

        The block stands here, since what travels with it must be of here.

        Raises:
            UserError: what a server holds has settings of its own that would choose or end otherwise.
        """
        import nnsight

        if touching := own_settings(self.away) if self.away else {}:
            field, value = next(iter(touching.items()))
            raise UserError(
                f"the generation_config.json of {self.away} sets {field} = {value!r}, which a server's generate would "
                "obey; decode it here, with the nnsight engine"
            )
        places = self.places(rows)
        ids, mask, _ = left_pad(rows.texts)
        given, width = {"input_ids": ids, "attention_mask": mask.long()}, ids.shape[1]
        model, plans, of_row, lengths = self.model, rows.plans, rows.of_row, rows.lengths
        arguments = dict(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(eos_ids) or None, pad_token_id=0,
            repetition_penalty=1.0, no_repeat_ngram_size=0, return_dict_in_generate=True, output_logits=True,
            suppress_tokens=list(never) or None,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=STOPPED_EARLY)
            with model.generate(remote=self.remote, **arguments) as tracer:
                with tracer.invoke(given):
                    carrier = Carrier(places, plans, of_row, mask, lengths, model.device)
                    done, moved = nnsight.save([]), nnsight.save([])
                    for step in tracer.iter[:max_new_tokens]:
                        carrier.forward(step)
                        moved.append(carrier.moved)
                        done.append([carrier.editor.delivery(n).to_dict() for n in (None, *range(len(plans)))])
                with tracer.invoke():  # one of its own: what stands after a loop that is cut short is not run
                    out = tracer.result
                    new = nnsight.save(out.sequences[:, width:])
                    logits = nnsight.save(torch.stack(out.logits, 1))
        self.delivery, *deliveries = (Delivery(**one) for one in done[-1])
        return Generated(new, logits, list(moved), deliveries)

    def places(self, rows: Rows) -> list[tuple[Site, Any]]:
        """The sites of checked plans in the order of the forward, each with nnsight's envoy of its module."""
        self.claims.check(self.name, rows)
        lm = self.model._module
        sites = Editor(rows.plans, rows.of_row).sites
        if any(parameter.is_meta for parameter in lm.parameters()):
            for site in sites:
                if site.point in ADDED:
                    raise UserError(
                        f"an intervention at {site} was given; whether {type(lm).__name__} adds its {site.point} to "
                        "the residual stream as it is cannot be tried on weights held elsewhere, use resid_pre or "
                        "resid_post"
                    )
        for plan in rows.plans:
            check_plan(lm, plan)
        return [(site, self.model.get(module_name(lm, site))) for site in sites]


class Carrier:
    """Carries activations to the editor and back inside a trace: made and used where the model is."""

    def __init__(
        self,
        places: Sequence[tuple[Site, Any]],
        plans: Sequence[Plan],
        of_row: Sequence[int] | None,
        mask: Tensor,
        lengths: Sequence[int] | None,
        device: torch.device,
    ) -> None:
        self.places = places
        self.mask = mask.to(device)
        self.count = Count(lengths)  # nnsight's own context stands where the decoder would be hooked
        self.editor = Editor(plans, of_row, device)
        self.moved: Tensor | None = None  # how far the last forward's positions were, [rows, pos]

    def forward(self, step: int) -> None:
        """Edit what one forward computes, in its order: nnsight refuses to look back."""
        if step == 0:
            self.count.begin(self.mask.shape[0], self.mask.shape[1], self.mask, self.mask.device)
        else:
            self.count.advance(1, self.mask.device)
        frame = self.count.frame
        assert frame is not None
        for site, envoy in self.places:
            if site.point == "resid_pre":
                changed = self.editor.edit(site, envoy.input, frame)
                if changed is not None:
                    envoy.input = changed
                continue
            out = envoy.output
            changed = self.editor.edit(site, out[0] if isinstance(out, tuple) else out, frame)
            if changed is not None:
                envoy.output = (changed, *out[1:]) if isinstance(out, tuple) else changed
        # Kept, since the block is in the next forward before the token is chosen.
        self.moved = self.editor.moved(frame)


def own_settings(name: str) -> dict[str, Any]:
    """What the generation_config.json of a model, by its name or folder, says that greedy decoding would obey.

    Raises:
        UserError: the file is no JSON.
    """
    try:
        said = GenerationConfig.from_pretrained(name).to_dict()
    except OSError as error:
        if isinstance(error.__context__, ValueError):
            raise UserError(f"the generation_config.json of {name!r} is no JSON; fetch it again") from error
        return {}  # it has none
    return {
        field: said[field]
        for field, harmless in TOUCHING.items()
        if said.get(field) is not None and said[field] not in harmless
    }


def _sharing(lm: PreTrainedModel) -> nn.Module:
    """A copy of the modules around the same weights: nnsight sets each module's `forward`, and for good.

    `generate` takes what it is not told from the `generation_config`: the copy's is bare.
    """
    shared: Any = copy.deepcopy(lm, {id(weight): weight for weight in (*lm.parameters(), *lm.buffers())})
    shared.generation_config = GenerationConfig()
    return shared


def _reduce_cached_property(value: Any) -> tuple[Any, ...]:
    return cached_property, (value.func,), {"attrname": value.attrname}
