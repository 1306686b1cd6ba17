"""vLLM behind the common interface: hooks inside its workers (`steering.backends.vllm_worker`), eager.

Plans go to the workers as JSON and safetensors bytes, and each request carries the number of its row, so a batch that
vLLM reorders, chunks or preempts is followed request by request.

With tensor parallelism the hooks run on each rank, on its copy of the whole stream, and do the same everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from probes.errors import UserError
from probes.sites import Site
from steering.backends import Claims, Completion, Rows
from steering.backends.vllm_worker import MARK
from steering.delivery import Delivery
from steering.hooks import check_fit
from steering.interventions import Plan
from steering.storage import pack

FIXED: dict[str, tuple[Any, str]] = {
    "enforce_eager": (True, "compiled graphs run no hooks"),
    # Blocks of the cache are found by their tokens alone: a steered prompt would continue from what an unsteered one
    # left.
    "enable_prefix_caching": (False, "a cached prefix holds another plan's activations"),
    "pipeline_parallel_size": (1, "each stage would see its own layers only"),
    "data_parallel_size": (1, "each replica would see its own requests only"),
    "speculative_config": (None, "positions that are drafted and dropped would be steered and counted"),
    "logprobs_mode": ("raw_logprobs", "the model's own log-probabilities are what is returned"),
}
"""Options of vLLM that may not be otherwise, and why."""


class VLLM:
    """Plans on a model that vLLM runs.

    Args:
        model: a folder or a hub id.
        dtype: of weights and activations.
        options: passed on to `vllm.LLM`.

    Raises:
        UserError: vLLM is not installed, an option that steering cannot work under, a model whose blocks run no hooks.
    """

    name = "vllm"
    claims = Claims()
    fixed = FIXED
    extension = "steering.backends.vllm_worker.SteeringExtension"

    def __init__(self, model: str | Path, *, dtype: str = "auto", **options: Any) -> None:
        for option, (value, why) in self.fixed.items():
            if options.get(option, value) != value:
                raise UserError(
                    f"{option}={options[option]!r} was given; the vllm backend needs {value!r} ({why}), leave it out"
                )
        # The hooks read the batch of the first model runner; where the second is the default, ask for the first.
        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError(
                "vllm is not installed here; `pip install vllm`, or `make test-vllm`, which makes .venv-vllm"
            ) from error
        # Ids go in and come out: no tokenizer is needed, and no sampling default of the model's own applies.
        given = {"max_logprobs": -1, "skip_tokenizer_init": True, "generation_config": "vllm", **options}
        fixed = {option: value for option, (value, _) in self.fixed.items()}
        try:
            self.llm = LLM(model=str(model), dtype=dtype, worker_extension_cls=self.extension, **{**given, **fixed})
        except AssertionError as error:
            if "worker extension" not in str(error):
                raise
            raise UserError(
                "the vllm backend and the vllm engine were both asked for in one process, whose worker takes one of "
                "them; use a process for each"
            ) from error
        self.delivery = Delivery()
        config = self.llm.llm_engine.model_config
        self.vocabulary: int = config.get_vocab_size()
        self.longest: int = config.max_model_len
        self._calls = count(1)
        self.rpc("steering_probe_begin")
        self._generate([[1, 2, 3]], 0, max_tokens=1)
        found = self.rpc("steering_probe_end")
        self.d_model: int = found["d_model"]
        self.points: list[list[str]] = found["points"]
        if not all(self.points):
            raise UserError(f"vLLM ran no hook in layer {self.points.index([])} of {model}; use the hf backend")

    def close(self) -> None:
        """End the engine and its processes."""
        self.llm.llm_engine.engine_core.shutdown()

    def score(self, rows: Rows) -> list[Float[Tensor, "pos vocab"]]:
        # Prompt log-probabilities end before the distribution after the last token, which a first new token brings.
        outputs = self._steered(rows, prompt_logprobs=-1, logprobs=-1, max_tokens=1)
        return [
            torch.cat([self._dense(output.prompt_logprobs)[1:], self._dense(output.outputs[0].logprobs)])
            for output in outputs
        ]

    def generate(
        self, rows: Rows, *, max_new_tokens: int, eos_ids: Sequence[int] = (), keep_logprobs: bool = False
    ) -> list[Completion]:
        asked = -1 if keep_logprobs else None
        outputs = self._steered(rows, max_tokens=max_new_tokens, stop_token_ids=list(eos_ids), logprobs=asked)
        out = []
        for answer in (output.outputs[0] for output in outputs):
            tokens = [int(token) for token in answer.token_ids]
            end = next((i for i, token in enumerate(tokens) if token in eos_ids), len(tokens))
            out.append(Completion(tokens[:end], self._dense(answer.logprobs)[:end] if keep_logprobs else None))
        return out

    def _steered(self, rows: Rows, **sampling: Any) -> list[Any]:
        call = self.begin(rows, sampling["max_tokens"])
        try:
            return self._generate(rows.texts, call, **sampling)
        finally:
            self.end()

    def begin(self, rows: Rows, max_new_tokens: int) -> int:
        """Steer the requests of a call, whose number it returns, until `end`.

        Raises:
            UserError: a plan that does not fit, texts longer than the engine was started for.
        """
        self.claims.check(self.name, rows)
        for plan in rows.plans:
            self._check_plan(plan)
        sizes = [len(text) for text in rows.texts]
        if max(sizes) + max_new_tokens > self.longest:
            raise UserError(
                f"a text of {max(sizes)} tokens and {max_new_tokens} new ones were asked for; vLLM was started "
                f"for {self.longest}, give a larger max_model_len"
            )
        tensors: dict[str, Tensor] = {}
        described = json.dumps(pack([list(plan) for plan in rows.plans], tensors))
        call = next(self._calls)
        numbers = None if rows.of_row is None else list(rows.of_row)
        lengths = sizes if rows.lengths is None else list(rows.lengths)
        self.rpc("steering_begin", call, described, save(tensors), numbers, lengths)
        return call

    def end(self) -> None:
        """Steer no more; `delivery` is what was done."""
        self.delivery = Delivery(**self.rpc("steering_end"))

    def _generate(self, texts: Sequence[Sequence[int]], call: int, **sampling: Any) -> list[Any]:
        from vllm import SamplingParams, TokensPrompt

        return self.llm.generate(
            [TokensPrompt(prompt_token_ids=[int(token) for token in text]) for text in texts],
            [
                SamplingParams(
                    temperature=0.0,
                    ignore_eos=True,  # the caller's end tokens count, not the model's
                    detokenize=False,
                    flat_logprobs=True,
                    extra_args={MARK: [call, row]},
                    **sampling,
                )
                for row in range(len(texts))
            ],
            use_tqdm=False,
        )

    def rpc(self, method: str, *args: Any) -> Any:
        """A method of the workers; all ranks answer alike, so the first answer stands for all."""
        return self.llm.collective_rpc(method, args=args)[0]

    def _dense(self, flat: Any) -> Float[Tensor, "pos vocab"]:
        """vLLM's flat (token, log-probability) pairs by position; it lists the chosen token twice."""
        sizes = torch.tensor(flat.end_indices) - torch.tensor(flat.start_indices)
        place = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        out = torch.full((len(sizes), self.vocabulary), -torch.inf)
        out[place, torch.tensor(flat.token_ids)] = torch.tensor(flat.logprobs, dtype=torch.float32)
        return out

    def _check_plan(self, plan: Plan) -> None:
        """Refuse a plan that does not fit the model.

        Raises:
            UserError: a layer or hook point that the model lacks, another width.
        """
        check_fit(plan, self.d_model, "the model", lambda site, _: self._check_site(site))

    def _check_site(self, site: Site) -> None:
        if not 0 <= site.layer < len(self.points):
            raise UserError(
                f"layer {site.layer} was given; the model has {len(self.points)} layers, "
                f"give 0 to {len(self.points) - 1}"
            )
        if site.point not in self.points[site.layer]:
            raise UserError(
                f"{site} was given; in vLLM layer {site.layer} of this model has {', '.join(self.points[site.layer])}, "
                "use one of them"
            )
