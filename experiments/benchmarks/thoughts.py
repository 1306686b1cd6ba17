"""How fast thoughts of all positions of a document are: together, and one position after the other.

    python -m experiments.benchmarks.thoughts           # one document of 64 tokens, three rounds, minutes on two cores
    python -m experiments.benchmarks.thoughts --loss    # the loss of such thoughts with its gradient, instead

Both sides sample the same thoughts (same model, marks, temperature, limit and random numbers, and nothing ends a
thought) at the same positions of one document, by this suite's loop: once in one batch whose text is computed once, as
`rlp` does; once as one prompt with its thoughts after the other; and beside them in one batch of prompts of their own,
so that what sharing the text gives is told apart from what one batch gives. Sides take turns within one run; medians
over rounds of tokens a second. Every round checks that all sides sampled the same tokens, where the model is in fp32.

With `--loss` both sides compute the log-probabilities of thoughts and their gradient (LoRA, rank 8): the document once,
or once for each position. The medians are of processor time; the gradients' largest difference is said.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

import elicit
from elicit.decoding import Generation, Sampling, StopRule
from elicit.decoding.engine import Batch as Prompts
from elicit.decoding.engine import decode_batch
from elicit.models import Model
from elicit.tasks.base import Items
from elicit.training.output_head import summed_cross_entropy
from elicit.training.recipe import Recipe
from elicit.training.rl.learner import learner
from elicit.training.rl.policy import Batch, hidden_states, prefix_of
from elicit.training.rl.positions import Positions, batch_of, positions, put, tokenized
from probes.batching import left_pad

TEXT = (
    "A baker sells loaves in the morning and rolls in the afternoon. On Monday she bakes forty loaves and sells all "
    "but seven of them. Each loaf costs three coins, and each roll costs one. By the evening she has sold fifty rolls "
    "as well, so she counts her coins, pays the miller half of what she has, and puts the rest under the stairs. "
)

Sampled = list[list[list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-latent")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=64, help="of the document")
    parser.add_argument("--thoughts", type=int, default=4, help="of a position")
    parser.add_argument("--limit", type=int, default=16, help="tokens of a thought")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loss", action="store_true", help="time the loss and its gradient")
    given = parser.parse_args()
    model = elicit.load_model(given.model, dtype=given.dtype)
    document = tokenized(model.tokenizer, [TEXT * 8], 1 << 20, given.tokens)[0][: given.tokens]
    before = put(model.tokenizer, [document], "<think>", "</think>")
    items = positions(model.tokenizer, [document])
    if given.loss:
        loss(model, before, items, given.thoughts, given.limit, given.rounds)
        return
    prompts = [before.ids(item.question, model.tokenizer) for item in items]
    names = [item.id for item in items]
    decoder = Sampling(given.thoughts, 1.0, max_new_tokens=given.limit)
    whole = Prompts(prompts, names, decoder, StopRule(frozenset()), trunk=before.trunk(items))
    apart = [
        Prompts([prompt], [name], decoder, StopRule(frozenset())) for prompt, name in zip(prompts, names, strict=True)
    ]
    sides: dict[str, Callable[[], Sampled]] = {
        "all positions, one text": lambda: _ids(model, [whole]),
        "all positions, a prompt each": lambda: _ids(model, [Prompts(prompts, names, decoder, StopRule(frozenset()))]),
        "one position after the other": lambda: _ids(model, apart),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    _ids(model, apart[:1])  # weights are packed and the way of decoding is found before anything is timed
    for number in range(given.rounds):
        found = {}
        for name, side in sides.items():
            began = time.perf_counter()
            found[name] = side()
            rates[name].append(len(items) * given.thoughts * given.limit / (time.perf_counter() - began))
        same = [found[name] == found["one position after the other"] for name in sides]
        if model.dtype == "float32" and not all(same):
            raise SystemExit(f"round {number}: the sides sampled other tokens: {dict(zip(sides, same, strict=True))}")
    slowest = statistics.median(rates["one position after the other"])
    print(f"{model.name} {model.dtype}: {len(items)} positions, {given.thoughts} thoughts of {given.limit} tokens each")
    for name, each in rates.items():
        print(f"{name:32}{statistics.median(each):9.0f} tokens/s{statistics.median(each) / slowest:8.2f} x")


def loss(model: Model, before: Positions, items: Items, thoughts: int, limit: int, rounds: int) -> None:
    """Time both ways to the same gradient."""
    drawn = torch.Generator().manual_seed(0)
    said = torch.randint(10, model.vocab_size, (len(items) * thoughts, limit), generator=drawn).tolist()
    rows = [n for n in range(len(items)) for _ in range(thoughts)]
    shared = batch_of(model.lm, before, items, rows, said, limit)
    prompts = left_pad([before.before(item.question) for item in items], model.lm.device)
    sides = {"all positions, one text": shared, "a prompt each": Batch.of(prompts, rows, said, limit)}
    took: dict[str, list[float]] = {name: [] for name in sides}
    with learner(model, Recipe(rank=8)) as student:
        with torch.no_grad():  # LoRA's second factor begins at 0, and with it the first one's gradient
            for p in student.trained.values():
                p += 0.01 * torch.randn(p.shape, generator=drawn)
        for number in range(rounds + 1):
            grads = []
            for name, batch in sides.items():
                began = time.process_time()
                _backward(student.lm, batch, 4 * thoughts)
                if number:  # the first round brings up kernels
                    took[name].append(time.process_time() - began)
                grads.append(torch.cat([p.grad.flatten() for p in student.trained.values() if p.grad is not None]))
                for p in student.trained.values():
                    p.grad = None
        off = float((grads[0] - grads[1]).norm() / grads[1].norm())
    slowest = statistics.median(took["a prompt each"])
    print(f"{model.name} {model.dtype}: {len(items)} positions, {thoughts} thoughts of {limit} tokens each, gradients "
          f"differ by {off:.1g} of their norm")  # fmt: skip
    for name, each in took.items():
        middle = statistics.median(each)
        print(f"{name:32}{middle:9.2f} s of processor time{slowest / middle:8.2f} x")


def _backward(lm: PreTrainedModel, batch: Batch, part: int) -> None:
    prefix = prefix_of(lm, batch.prompts)
    leaves = prefix.leaves()
    for _, some in batch.parts(part):
        hidden = hidden_states(lm, leaves, some)
        summed_cross_entropy(lm, hidden, some.tokens[some.mask]).backward()
    prefix.backward(leaves)


def _ids(model: Model, batches: Sequence[Prompts]) -> Sampled:
    made: list[list[Generation]] = [branches for batch in batches for branches in decode_batch(model, batch)]
    return [[one.tokens.tolist() for one in branches] for branches in made]


if __name__ == "__main__":
    main()
