"""How fast power sampling's chains are: all questions together, and one question after the other by `generate`.

    python -m experiments.benchmarks.power                 # 16 questions, three rounds, a few minutes on two cores

The other way is that of public code of arXiv 2510.14901, written here from its description: for each question, block
and move `generate` of `transformers` continues the kept tokens with sampling at temperature 1/α and hands back its
logits, of which both log-probabilities are computed. Blocks, moves, α and limit are the same, and nothing ends an
answer, so that both draw as many tokens but for the positions, which each draws by itself: what is compared is tokens a
second.
The sides take turns within one run; medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

import elicit
from elicit.decoding import Power, StopRule
from elicit.decoding.engine import Batch, decode_batch
from elicit.models import Model


def together(model: Model, prompts: Sequence[Sequence[int]], how: Power) -> tuple[int, float]:
    """Tokens drawn by this suite, and the share of moves that were accepted."""
    made = decode_batch(model, Batch(prompts, [str(n) for n in range(len(prompts))], how, StopRule(frozenset())))
    flat = [one for chains in made for one in chains]
    return sum(one.spent for one in flat), sum(one.accepted for one in flat) / max(1, sum(one.moves for one in flat))


@torch.inference_mode()
def one_by_one(model: Model, prompts: Sequence[Sequence[int]], how: Power) -> tuple[int, float]:
    """The same of one question after the other."""
    random = np.random.default_rng(how.seed)
    torch.manual_seed(how.seed)
    drawn, accepted, moved = 0, 0, 0

    def drawn_from(kept: list[int], begin: int, until: int) -> tuple[list[int], list[float]]:
        ids = torch.tensor([kept], device=model.lm.device)
        out = model.lm.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=how.temperature, top_k=0, top_p=1.0,
            max_new_tokens=until - begin, eos_token_id=model.vocab_size, pad_token_id=0, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        new = out.sequences[0, len(kept) :]
        rows = torch.stack(out.logits, 1)[0].float()
        at = (torch.arange(len(new), device=new.device), new)
        p, q = rows.log_softmax(-1)[at], (how.alpha * rows).log_softmax(-1)[at]
        return new.tolist(), (how.alpha * p - q).tolist()

    for prompt in prompts:
        tokens: list[int] = []
        gains: list[float] = []
        for until in [*range(how.block, how.max_new_tokens, how.block), how.max_new_tokens]:
            new, more = drawn_from([*prompt, *tokens], len(tokens), until)
            drawn += len(new)
            tokens, gains = [*tokens, *new], [*gains, *more]
            for _ in range(how.moves):
                begin = int(random.integers(len(tokens)))
                new, more = drawn_from([*prompt, *tokens[:begin]], begin, until)
                drawn, moved = drawn + len(new), moved + 1
                if np.log(1 - random.random()) < sum(more) - sum(gains[begin:]):
                    tokens, gains, accepted = [*tokens[:begin], *new], [*gains[:begin], *more], accepted + 1
    return drawn, accepted / max(1, moved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-latent")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--moves", type=int, default=4)
    parser.add_argument("--limit", type=int, default=32)
    given = parser.parse_args()
    model = elicit.load_model(given.model)
    task = elicit.load_task("organism", limit=given.questions)
    direct = elicit.methods.direct.fit(model)
    prompts = [direct.prompt_ids(item) for item in task.test]
    how = Power(4.0, given.block, given.moves, max_new_tokens=given.limit)
    sides = {"together": together, "one by one": one_by_one}
    for side in sides.values():  # what is made once
        side(model, prompts[:1], Power(4.0, 4, 1, max_new_tokens=4))
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            drawn, share = side(model, prompts, how)
            speeds[name].append(drawn / (time.perf_counter() - began))
            print(f"{name}: {drawn} tokens, {share:.2f} of moves accepted, {speeds[name][-1]:.1f} tokens/s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(*speeds.values(), strict=True))
    print(
        f"{model.name}, {model.dtype}, {torch.get_num_threads()} threads, {len(prompts)} questions: "
        f"{ratio:.1f} times the tokens a second"
    )


if __name__ == "__main__":
    main()
