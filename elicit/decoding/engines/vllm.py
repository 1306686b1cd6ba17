"""vLLM as an engine: its scheduler, cache and kernels; tokens are chosen, ended and measured by the suite's own code.

A logits processor in vLLM's workers (`elicit.decoding.vllm`) lets the decoder choose, by the same keyed random numbers
as the reference, and keeps the statistics of each token. Branching goes in two phases, so that all branches of a
question are opened from one distribution: the first step of each prompt, then a continuation of each branch. Plans are
carried by `steering.backends.vllm`, with vLLM's cache of prefixes on: a steered prompt has a salt, the hash of its plan
and of its question's length, so that no other plan finds its keys and values.

vLLM holds the weights a second time. It reads them from the model's own folder, or from one that is written once to the
cache of `elicit` where there is none in its form: organisms and GGUF files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load

from elicit.decoding.decoders import Branching, Greedy, Sampling, decoder_to_dict
from elicit.decoding.engine import STATISTICS, Batch, Can, Engine, EngineDied, check_delivery
from elicit.decoding.engines.hf import checked
from elicit.decoding.loop import Generation, OnStep, Record
from elicit.decoding.loop import Rows as Opened
from elicit.decoding.ready import check_prompts
from elicit.decoding.thought import begun_in
from elicit.decoding.vllm.calls import MARK
from elicit.decoding.vllm.phases import Answered, Asked, columns, emitted, rows_of, streams_of, write
from elicit.decoding.vllm.weights import folder_of, rank_of
from elicit.models.download import cache_dir
from elicit.models.memory import free_bytes
from elicit.models.model import Model
from probes.errors import UserError
from probes.files import locked, make_folder
from steering.adapters import Adapter, Tuned
from steering.backends import Claims, Rows
from steering.backends.vllm import FIXED, VLLM
from steering.backends.vllm_worker import MARK as STEERED
from steering.delivery import Delivery

REMEMBERED = 100_000  # blocks of steered positions whose moves are remembered, as long as vLLM's cache may hold them
LOOK = 0.5  # seconds between two looks whether the process lives
OPTIONS = {
    "tensor_parallel_size": 1,
    "gpu_memory_utilization": 0.9,
    "max_model_len": 0,
    "max_num_seqs": 0,
    "max_num_batched_tokens": 0,
    "block_size": 0,
}
"""What vLLM may be told; 0: as it likes."""


class _Workers(VLLM):
    """vLLM's `LLM` with the suite's methods in its workers."""

    fixed = {name: given for name, given in FIXED.items() if name != "enable_prefix_caching"}  # noqa: RUF012  # as its class has it
    extension = "elicit.decoding.vllm.worker.EngineExtension"

    def number(self) -> int:
        """Of a call that steers nothing."""
        return next(self._calls)


class VLLMEngine(Engine):
    """Everything but hybrid decoding and training. Steered and unsteered prompts share what is computed once."""

    name = "vllm"
    can = Can(frozenset({"greedy", "sampling", "branching"}), frozenset(STATISTICS), Claims(), adapters=True)
    options = OPTIONS
    rounds = 8

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "vllm is not installed here; install it in an environment of its own (docs/how-to/engine.md says how)"
            )
        if model.stored is not None:
            raise UserError(f"the vllm engine reads no weights that are stored as {model.quantised}; use the hf engine")
        self.place = folder_of(model)
        self.workers: _Workers | None = None
        self.rank = 0  # of adapters that the workers take
        self.adapters: dict[str, int] = {}
        self.remembered: dict[tuple[str, bytes], Float[np.ndarray, " _"]] = {}

    @property
    def how(self) -> str:
        names = importlib.metadata.packages_distributions()["vllm"]
        return f"{names[0]} {importlib.metadata.version(names[0])}"

    def close(self) -> None:
        """End vLLM's processes; they begin again when something is decoded."""
        if self.workers is not None:
            self.workers.close()
        self.workers = None
        self.adapters, self.remembered = {}, {}

    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        try:
            return self._answers(batch, on_step)
        except Exception as error:
            if not _died(error):
                raise
            self.close()
            raise EngineDied(
                f"vLLM's processes ended while they decoded ({type(error).__name__}: killed, or out of memory); give "
                "the same command again, with a smaller gpu_memory_utilization or max_num_seqs where memory ran out"
            ) from error

    def _answers(self, batch: Batch, on_step: OnStep | None) -> list[list[Generation]]:
        model, decoder = self.model, batch.decoder
        check_prompts(model.lm, batch.prompts, decoder.max_new_tokens, batch.stop.tokenizer)
        batch.policy(model)  # refuses what it cannot choose among
        lora = self._ready(batch.adapter)
        branches, prompts = decoder.branches, len(batch.prompts)
        opened = Opened(np.repeat(np.arange(prompts), branches), np.tile(np.arange(branches), prompts))
        record = Record(opened, decoder.max_new_tokens, batch.stop, model.lm, listeners=batch.listeners)
        deliveries: list[Delivery] = [Delivery()] * len(batch.arms)
        with checked(batch, None):
            if isinstance(decoder, Branching):
                self._branches(batch, decoder, record, lora, deliveries, on_step)
            else:
                asked = rows_of(batch, opened.question.tolist(), streams_of(batch, decoder))
                asked.record, asked.target = record, range(len(opened.question))
                assert isinstance(decoder, Greedy | Sampling)  # the door lets in nothing else
                kept = self._decoded(batch, decoder, asked, lora, deliveries, on_step)
                write(record, asked, kept)
        if batch.steered:
            check_delivery(batch, deliveries)
        return record.finished()

    def _branches(
        self,
        batch: Batch,
        decoder: Branching,
        record: Record,
        lora: Any,
        deliveries: list[Delivery],
        on_step: OnStep | None,
    ) -> None:
        """First tokens of all branches from one step of each prompt, then each branch's continuation."""
        every = list(range(len(batch.prompts)))
        first = rows_of(batch, every, [()] * len(every))
        start = self._decoded(batch, Greedy(1), first, lora, deliveries, None, decoder.k)
        target = (start.rows[:, None] * decoder.k + np.arange(decoder.k)).reshape(-1)
        chosen, steps = start.tokens.reshape(-1), np.zeros(len(target), dtype=np.int64)
        ends = [len(text) - 1 for text in first.texts]
        moved = np.array([start.moved[row][ends[row]] for row in start.rows]).repeat(decoder.k)
        record.measure(target, steps, columns(record, start.values.reshape(5, -1), moved))
        ended = record.emit(target, steps, chosen)
        for row in every:
            record.prompt_moved[row * decoder.k : (row + 1) * decoder.k] = int(
                (start.moved[row][: ends[row]] > 0).sum()
            )
        order = np.argsort(target)
        open_ = [int(i) for i in order if not ended[i]]
        if decoder.max_new_tokens == 1 or not open_:
            return
        question = [int(target[i]) // decoder.k for i in open_]
        asked = rows_of(batch, question, [()] * len(open_))
        for text, i in zip(asked.texts, open_, strict=True):
            text.append(int(chosen[i]))
        asked.record, asked.target, asked.first = record, [int(target[i]) for i in open_], 1
        rest = self._decoded(batch, Greedy(decoder.max_new_tokens - 1), asked, lora, deliveries, on_step)
        write(record, asked, rest)

    def _decoded(
        self,
        batch: Batch,
        decoder: Greedy | Sampling,
        asked: Asked,
        lora: Any,
        deliveries: list[Delivery],
        on_step: OnStep | None,
        opened: int = 0,
    ) -> Answered:
        """One phase, from the requests to what was kept of them."""
        assert self.workers is not None
        workers, rows = self.workers, Rows(asked.texts, batch.plans, asked.arm_of, asked.lengths)
        longest = max(map(len, asked.texts)) + decoder.max_new_tokens
        if longest > workers.longest:
            raise UserError(
                f"a prompt and its answer need {longest} positions, vLLM was started for {workers.longest}; "
                "give a larger max_model_len, or lower max_new_tokens"
            )
        call = workers.begin(rows, decoder.max_new_tokens) if batch.steered else workers.number()
        moved = [np.zeros(len(text), dtype=np.float32) for text in asked.texts]
        try:
            thoughts = self._thoughts(batch, asked)
            workers.rpc("choosing_begin", call, decoder_to_dict(decoder), opened, list(self.model.unlisted), *thoughts)
            try:
                cached = self._run(workers, batch, decoder, asked, call, lora, on_step)
            finally:
                kept = load(workers.rpc("choosing_end", call))
            answered = Answered(**{name: value.numpy() for name, value in kept.items()}, moved=moved).once()
            if batch.steered:
                table, done = workers.rpc("steering_moved")
                moved = answered.moved = self._moves(batch, asked, answered, cached, load(table))
                for arm, one in enumerate(done):
                    found = Delivery(**one)
                    more = sum(int((moved[r][:n] > 0).sum()) for r, n in cached.items() if asked.arm_of[r] == arm)
                    deliveries[arm] = _both(deliveries[arm], replace(found, positions=found.positions + more))
        finally:
            if batch.steered:
                workers.end()
        return answered

    def _run(
        self,
        workers: _Workers,
        batch: Batch,
        decoder: Greedy | Sampling,
        asked: Asked,
        call: int,
        lora: Any,
        on_step: OnStep | None,
    ) -> dict[int, int]:
        """Steps of vLLM until all requests have ended; how many tokens of each text were cached."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        engine, salts = workers.llm.llm_engine, self._salts(batch, asked)
        number = {f"{call}-{row}": row for row in range(len(asked.texts))}
        written: list[list[int]] = [[] for _ in asked.texts]
        cached: dict[int, int] = {}
        waiting = set(number)
        step = 0
        try:
            for name, row in number.items():
                marks = {STEERED: [call, row], MARK: [call, row, *asked.streams[row]]}
                params = SamplingParams(
                    temperature=0.0,  # of the one token that is left
                    max_tokens=decoder.max_new_tokens,
                    ignore_eos=True,
                    stop_token_ids=sorted(batch.stop.eos_ids),
                    detokenize=False,
                    extra_args=marks,
                    output_kind=RequestOutputKind.DELTA,
                )
                prompt = TokensPrompt(prompt_token_ids=asked.texts[row])
                if salts[row]:
                    prompt["cache_salt"] = salts[row]
                engine.add_request(name, prompt, params, lora_request=lora)
            while waiting:
                ended = set()
                _await(engine.engine_core)
                for out in engine.step():
                    row = number[out.request_id]
                    cached.setdefault(row, int(out.num_cached_tokens or 0))
                    written[row] += out.outputs[0].token_ids
                    over = asked.record is not None and emitted(asked, row, written[row], out.outputs[0].token_ids)
                    if out.finished:
                        waiting.discard(out.request_id)
                    elif over:
                        ended.add(out.request_id)
                if ended:
                    engine.abort_request(sorted(ended))
                    waiting -= ended
                step += 1
                if on_step is not None:
                    on_step(step, len(waiting))
        finally:
            if waiting:  # an error, or an interruption
                engine.abort_request(sorted(waiting))
        return cached

    def _thoughts(self, batch: Batch, asked: Asked) -> tuple[Any, ...]:
        """What the workers need to end thoughts: the budget, a folder with the tokenizer, what each row has begun."""
        if not batch.stop.thought_tokens:
            return ()
        folder = make_folder(cache_dir() / "vllm" / f"tokenizer-{self.model.encoding_sha256[:32]}")
        with locked(folder, "writing a tokenizer to"):
            if not (folder / "whole").is_file():
                self.model.tokenizer.save_pretrained(folder)
                (folder / "whole").touch()
        begun = []
        for text, length in zip(asked.texts, asked.lengths, strict=True):
            begun.append((begun_in(self.model.tokenizer, text[:length]), text[length:]))
        return batch.stop.thought_tokens, str(folder), begun

    def _salts(self, batch: Batch, asked: Asked) -> list[str]:
        """Of each row: the hash of its plan and adapter, and its question's length; "" where nothing is steered."""
        put_on = "" if batch.adapter is None else batch.adapter.sha256
        plans = [
            hashlib.sha256(repr([put_on, *(one.digest for one in plan)]).encode()).hexdigest() for plan in batch.plans
        ]
        return [
            f"{plans[arm]} {length}" if batch.plans[arm] else ""
            for arm, length in zip(asked.arm_of, asked.lengths, strict=True)
        ]

    def _moves(
        self,
        batch: Batch,
        asked: Asked,
        answered: Answered,
        cached: Mapping[int, int],
        table: Mapping[str, Any],
    ) -> list[Float[np.ndarray, " _"]]:
        """How far each row's positions were moved, those that lay in the cache included."""
        assert self.workers is not None
        block = self.workers.llm.llm_engine.vllm_config.cache_config.block_size
        if len(self.remembered) > REMEMBERED:
            self.workers.llm.reset_prefix_cache()
            self.remembered = {}
        paths = [list(text) for text in asked.texts]
        for place in np.lexsort((answered.steps, answered.rows)):
            paths[answered.rows[place]].append(int(answered.tokens[place, 0]))
        moved = [np.zeros(len(path), np.float32) for path in paths]
        rows, positions, shares = (table[name].numpy() for name in ("rows", "positions", "shares"))
        for row in range(len(moved)):
            mine = (rows == row) & (positions < len(moved[row]))
            moved[row][positions[mine]] = shares[mine]
        for row, salt in enumerate(self._salts(batch, asked)):
            if not salt:
                continue
            path = np.array(paths[row], dtype=np.int64)
            names, total = [], hashlib.blake2b(digest_size=16)
            for start in range(0, len(path) - block + 1, block):
                total.update(path[start : start + block].tobytes())
                names.append((salt, total.copy().digest()))
            for place, name in enumerate(names[: cached.get(row, 0) // block]):
                moved[row][place * block : (place + 1) * block] = self.remembered[name]
            for place, name in enumerate(names):
                self.remembered.setdefault(name, moved[row][place * block : (place + 1) * block].copy())
        return moved

    def _ready(self, adapter: Tuned | None) -> Any:
        """The workers, started where they are not, and vLLM's name of an adapter."""
        rank = 0 if adapter is None else rank_of(adapter)
        if self.workers is not None and rank > self.rank:
            self.close()
        if self.workers is None:
            self.rank = max(rank, self.rank)
            self.workers = self._started()
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        assert isinstance(adapter, Adapter)
        number = self.adapters.setdefault(adapter.sha256, len(self.adapters) + 1)
        return LoRARequest(adapter.sha256[:16], number, str(adapter.folder.resolve()))

    def _started(self) -> _Workers:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if self.model.engine_options.get("tensor_parallel_size", 1) == 1:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process: it starts sooner
        given = {name: value for name, value in self.model.engine_options.items() if value != OPTIONS[name]}
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            given.setdefault("block_size", 32)  # of 128 tokens by default, so that short prompts are never shared
            free = free_bytes(torch.device("cpu"))
            if "gpu_memory_utilization" not in given:  # of all memory 0.92, where others may work beside it
                os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, (free or 8 << 30) // 4 >> 30)))
        if self.rank:
            given |= {"enable_lora": True, "max_lora_rank": self.rank, "max_loras": 1}
        try:
            return _Workers(
                self.place,
                dtype=self.model.dtype,
                enable_prefix_caching=True,
                async_scheduling=False,  # a step's tokens are written before the next is begun
                logits_processors=["elicit.decoding.vllm.chooser:Chooser"],
                **given,
            )
        except (ValueError, RuntimeError, NotImplementedError) as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"vLLM cannot be started for {self.model.name} ({told}); use the hf engine") from error


def _await(core: Any) -> None:
    """Wait for the next output of vLLM's other process; its own wait (0.32.0) does not end where that process does.

    Raises:
        EngineDeadError: it has ended.
    """
    outputs = getattr(core, "outputs_queue", None)
    if outputs is None:  # in this process
        return
    with outputs.not_empty:
        while not outputs.queue:
            core.ensure_alive()
            outputs.not_empty.wait(LOOK)


def _died(error: BaseException | None) -> bool:
    """Whether it is, or came while one handled, vLLM's word for its processes' end."""
    from vllm.v1.engine.exceptions import EngineDeadError

    while error is not None and not isinstance(error, EngineDeadError):
        error = error.__cause__ or error.__context__
    return error is not None


def _both(one: Delivery, other: Delivery) -> Delivery:
    """What two phases did together: counts add up; means are the later phase's."""
    return replace(
        other,
        positions=one.positions + other.positions,
        max_share=max(one.max_share, other.max_share),
        not_finite=one.not_finite + other.not_finite,
        gate_fired=one.gate_fired + other.gate_fired,
        gate_asked=one.gate_asked + other.gate_asked,
    )
