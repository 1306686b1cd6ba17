"""`elicit` as a model of lm-eval 0.4: any handle on its tasks, by its prompts and metrics.

It is an `HFLM` around the model that is loaded here, so that tokens, windows and chat templates are lm-eval's own. What
computes is not: `HFLM` pads at the right without a mask and scores prompt and continuation in one forward, in which
interventions take both for prompt. Likelihoods come from `likelihood.py`, answers from `Elicited.respond`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval import utils
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from elicit.decoding.decoders import Branching, Sampling
from elicit.decoding.loop import StopRule
from elicit.elicited import Elicited
from elicit.integrations.lm_eval.arguments import AUTO, STOPS, Arguments, check_prompt, needs_kind, parsed
from elicit.integrations.lm_eval.asking import Asked, Words, draws, repeats_of, settings, streams
from elicit.integrations.lm_eval.likelihood import Likelihood, check_scored, fitting, likelihoods
from elicit.models.chat import written
from elicit.models.processes import check_alone
from elicit.models.prompts import THINK
from elicit.tasks.lm_eval import SampleIds
from elicit.tasks.statements import open_thought
from probes.batching import tokens_together
from probes.encoding import encoded
from probes.errors import UserError

ROWS = 320  # branches decoded together, as an evaluation of the suite's own does
OF_ASKING = ("kind", "stop", "truncate", "seed", "batch_size", "max_batch_size")  # and not of what is asked
CACHE_MARK = "elicit"  # the key under which a cache of answers says whose they are
_log = logging.getLogger("lm_eval.elicit")


class ElicitLM(HFLM):
    """A handle as a model of lm-eval.

    Args:
        pretrained: a handle, or a model's name.
        given: `elicit.integrations.lm_eval.arguments.Arguments`, and the options of the method; with a handle those of
            what made it are refused.

    Attributes:
        handle: what answers.
        digest: a hash of all that decides its answers.

    Raises:
        UserError: an argument that is unknown or cannot be honoured; as `Arguments.handle`.
    """

    def __init__(self, pretrained: str | Elicited = "", **given: Any) -> None:
        check_alone("lm-eval")
        if isinstance(pretrained, Elicited):
            self.arguments = Arguments.of(given)
            if made := [key for key in given if key not in OF_ASKING]:
                raise UserError(f"a handle and {made[0]} were given; leave {made[0]} out")
            handle = pretrained
        else:
            self.arguments = Arguments.of({"pretrained": pretrained, **given})
            handle = self.arguments.handle()
        check_prompt(handle)
        if needs_kind(handle) and not self.arguments.kind:
            raise UserError(
                f"{handle.method} chooses among answers, and for that has to know their kind; give kind=number "
                "(expression, option, math, text, …), or of each task: --model_args "
                '\'{"kind": {"gsm8k": "number"}}\''
            )
        self.handle = handle
        with _quiet():
            super().__init__(
                pretrained=handle.model.lm,
                tokenizer=copy.deepcopy(handle.model.tokenizer),  # it may be given a padding token
                backend="causal",
                logits_cache=False,
                batch_size=1,
                chat_template_args=json.loads(handle.prompt.arguments or "{}"),
            )
        self.words = Words(handle)
        self._said: set[str] = set()

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> ElicitLM:
        """As lm-eval makes a model of `key=value,…`; a JSON object may be given instead."""
        return cls.create_from_arg_obj(parsed(arg_string), additional_config)

    @property
    def digest(self) -> str:
        handle, arguments = self.handle, self.arguments
        kinds = arguments.kind if isinstance(arguments.kind, str) else dict(arguments.kind)
        said = [handle.decode_key, handle.select, arguments.stop, kinds, arguments.truncate, arguments.seed]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def batch_size(self) -> int | str:
        """Prompts decoded together."""
        return self.arguments.prompts_at_once or AUTO

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's cache of contexts, which holds what the handle's prompt put into them."""
        return f"{self.handle.model.encoding_sha256[:16]}-{self.digest}"

    def get_model_info(self) -> dict[str, Any]:
        """What the results say of the model: its weights by their hash, and the whole handle."""
        model = self.handle.model
        return {
            "model_num_parameters": int(model.lm.num_parameters()),
            "model_dtype": model.dtype,
            "model_revision": model.provenance.revision,
            "model_sha": model.provenance.sha256,
            "elicit": {**self.handle.to_dict(), "digest": self.digest, "stop": self.arguments.stop},
        }

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take lm-eval's cache of answers, if it is this handle's.

        Raises:
            UserError: it holds another's answers, or those of a handle that draws: each repeat would get the same.
        """
        held = cache_hook.dbdict
        if held is not None:
            if draws(self.handle):
                raise UserError(
                    f"{self.handle.method} draws its answers, and lm-eval's cache would give every repeat the same "
                    "one; leave --use_cache out"
                )
            if len(held) and held.get(CACHE_MARK) != self.digest:
                raise UserError(
                    f"the cache {held.filename!r} holds answers of another model or mechanism; name it by this one's "
                    f"digest: --use_cache NAME-{self.digest}"
                )
            held[CACHE_MARK] = self.digest
        super().set_cache_hook(cache_hook)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **_: Any
    ) -> list[int]:
        """Token ids with one beginning token at most, and without the end token that some tokenizers append."""
        ids = encoded(self.handle.model.tokenizer, string, special=add_special_tokens is not False)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The chat as text, with the trigger of the handle's prompt at the end of the user's last message.

        Raises:
            UserError: no template, or one that fails, refuses the system message or leaves it out.
        """
        last = max((n for n, turn in enumerate(chat_history) if turn["role"] == "user"), default=-1)
        turns = [
            {**turn, "content": self.words.user(turn["content"])} if n == last else turn
            for n, turn in enumerate(chat_history)
        ]
        return written(self.handle.model.tokenizer, turns, self.chat_template_args, begun=not add_generation_prompt)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair: tuple[list[int], list[int]] = super()._encode_pair(self.words.after(context), continuation)
        return pair

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether it is what greedy decoding would write.

        Raises:
            UserError: hybrid decoding; interventions that moved nothing.
        """
        check_scored(self.handle)
        self._tell_of_likelihoods()
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text after the prefix token, window by window as `HFLM` cuts it.

        Raises:
            UserError: as `loglikelihood`.
        """
        check_scored(self.handle)
        self._tell_of_likelihoods(rolling=True)
        windows: list[tuple[int, Any]] = []
        for number, request in enumerate(requests):
            cut = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(number, (None, *utils.make_disjoint_window(window))) for window in cut]
        totals = [0.0] * len(requests)
        found = self._loglikelihood_tokens([window for _, window in windows], disable_tqdm=disable_tqdm)
        for (number, _), (logprob, _) in zip(windows, found, strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        pairs = [fitting(context, said, self.max_length, self.arguments.truncate) for _, context, said in requests]
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:

            def keep(found: list[tuple[int, Likelihood]]) -> None:
                for number, likelihood in found:
                    if requests[number][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[number][0], tuple(likelihood))
                bar.update(len(found))

            lm = self.handle.model.lm
            alone = self.arguments.prompts_at_once == 1
            found = likelihoods(self.handle, pairs, tokens_together(lm, 1), alone, keep)
        return [(one.logprob, one.greedy) for one in found]

    def _tell_of_likelihoods(self, rolling: bool = False) -> None:
        handle = self.handle
        if isinstance(handle.decoder, Branching | Sampling):
            self._say(
                f"{handle.method} chooses how answers are decoded, which changes no likelihood: what is scored is the "
                "model itself, without it"
            )
        if handle.prompt.trigger == THINK and not rolling:
            self._say(
                f"what is scored is what follows {THINK!r} at once, before any thought; "
                f"answers of {handle.method} come after one: give tasks of output_type generate_until"
            )
        if rolling and any(one.when.kind != "everywhere" for one in handle.interventions):
            self._say(
                "a text that is scored as a whole has no prompt but its first token: "
                "interventions count their steps from there"
            )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.warning("elicit: %s", text)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer each request by the handle's own decoder.

        Raises:
            UserError: generation arguments that cannot be honoured, a kind that is not known, a context that is too
                long; all before anything is decoded. As `Elicited.respond`.
        """
        asked = self._asked(requests)
        out = [""] * len(requests)
        with tqdm(total=len(asked), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for batch in self._batches(asked):
                first = batch[0]
                stop = self._stop(first)
                drafts = first.handle.respond(
                    [one.prompt for one in batch],
                    [one.kind for one in batch],
                    [one.rng_stream for one in batch],
                    limit=first.limit,
                    stop=stop,
                    begun=[one.begun for one in batch],
                )
                for one, some in zip(batch, drafts, strict=True):
                    _, verdict = one.handle.chosen(some, one.kind)
                    best = next(draft for draft in some if draft.choice == verdict.branch)
                    text = best.said.text
                    if stop.anywhere:
                        text = self._cut(best.generation.tokens.tolist(), stop.strings)
                    out[one.number] = text
                    self.cache_hook.add_partial("generate_until", requests[one.number].args, text)
                bar.update(len(batch))
        return out

    def _asked(self, requests: Sequence[Any]) -> list[Asked]:
        known: dict[str, Any] = {}
        given = []
        for request in requests:
            key = json.dumps(request.args[1], sort_keys=True, default=str)
            if key not in known:
                known[key] = settings(self.handle, request.args[1], self.arguments.seed)
            given.append(known[key])
        names = SampleIds()
        samples = [names.of(request.task_name, request.doc_id, request.doc) for request in requests]
        found = streams([handle for handle, _, _ in given], samples, repeats_of(requests), self.arguments.seed)
        out = []
        for n, (request, (handle, limit, until)) in enumerate(zip(requests, given, strict=True)):
            if draws(handle) and self.cache_hook.dbdict is not None and not request.args[1].get("do_sample"):
                raise UserError(
                    "samples are asked for by temperature alone, which lm-eval's cache takes for greedy decoding; give "
                    "--gen_kwargs do_sample=true as well, or leave --use_cache out"
                )
            kind = self.arguments.kind_for(request.task_name)
            if kind is None and needs_kind(handle):
                raise UserError(
                    f"the kind of the answers of {request.task_name!r} was not given, and {handle.method} chooses "
                    "among answers; name it too in kind"
                )
            context = self.words.after(request.args[0])
            opened = self.words.opened(context)
            begun = open_thought(self.words.begin if opened is None else opened)
            ids = tuple(self._room(self.tok_encode(context), limit))
            out.append(Asked(n, ids, begun, kind or "whole", found[n], handle, limit, until))
        return out

    def _room(self, ids: list[int], limit: int) -> list[int]:
        room = self.max_length - limit
        if len(ids) <= room:
            return ids
        if not self.arguments.truncate or room < 1:
            raise UserError(
                f"a context of {len(ids)} tokens and answers of {limit} were asked for, and there are "
                f"{self.max_length} positions; give fewer examples, a smaller max_gen_toks, or truncate=true to cut "
                "contexts at their beginning"
            )
        return ids[-room:]

    def _batches(self, asked: Sequence[Asked]) -> Iterator[list[Asked]]:
        """Requests that are answered alike, the longest first."""
        groups: dict[Any, list[Asked]] = {}
        for one in asked:
            groups.setdefault(one.together, []).append(one)
        for group in groups.values():
            auto = max(1, ROWS // group[0].handle.decoder.branches)  # type: ignore[attr-defined]
            size = self.arguments.prompts_at_once if self.arguments.batch_size != AUTO else None
            size = size or min(auto, self.arguments.max_batch_size or auto)
            group.sort(key=lambda one: -len(one.prompt))
            yield from (group[start : start + size] for start in range(0, len(group), size))

    def _stop(self, asked: Asked) -> StopRule:
        """Where answers end: as `HFLM` has it at the first string anywhere and at the ends that the model's
        configuration names; or as elsewhere in this suite. Thoughts end by the prompt's budget either way."""
        model, prompt = self.handle.model, self.handle.prompt
        if self.arguments.stop != STOPS[0]:
            strings = (*asked.until, *prompt.ends)
            return StopRule(model.eos_ids, strings, model.tokenizer, thought_tokens=prompt.thought_tokens)
        configured = model.lm.generation_config.eos_token_id if model.lm.generation_config else None
        ends = {*(configured if isinstance(configured, list) else [configured]), model.tokenizer.eos_token_id} - {None}
        written_out = (
            [self.tok_decode([self.eot_token_id], skip_special_tokens=False)] if self.eot_token_id is not None else []
        )
        strings = tuple(dict.fromkeys((*asked.until, *written_out)))
        return StopRule(frozenset(ends), strings, model.tokenizer, anywhere=True, thought_tokens=prompt.thought_tokens)

    def _cut(self, tokens: list[int], strings: Sequence[str]) -> str:
        """The text as `HFLM` gives it: without special tokens, up to the first string of each."""
        text: str = self.tok_decode(tokens)
        for string in strings:
            text = text.split(string)[0]
        return text


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what `HFLM` warns of where it is given a model: nothing that it names is done here."""
    log = logging.getLogger(HFLM.__module__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def register() -> None:
    """Make `elicit` a name of lm-eval's models, as its releases do by themselves that scan entry points."""
    from lm_eval.api.registry import model_registry

    if "elicit" not in model_registry:
        model_registry.register("elicit", target=ElicitLM)
