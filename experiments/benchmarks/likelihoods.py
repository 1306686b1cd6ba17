"""How far float32 likelihoods are from a float64 forward: lm-eval's `hf` one text at a time, and ours in batches.

    python -m experiments.benchmarks.likelihoods

Texts of 10 to 60 random tokens, of which 1 to 19 are scored. The float64 forward has float64 norms, which the model's
own class computes in float32 whatever its weights are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from elicit.integrations.lm_eval.likelihood import Pair, likelihoods
from elicit.methods import fit
from elicit.models import load_model

MODEL, TEXTS, SEED = "smollm2-135m-latent", 16, 1


@torch.inference_mode()
def own(lm: PreTrainedModel, pair: Pair) -> Tensor:
    """Log-probabilities of a continuation's tokens, by one forward of the text alone, as `HFLM` takes them."""
    logprobs = lm(input_ids=torch.tensor([[*pair.context, *pair.continuation[:-1]]]), use_cache=False).logits[0]
    said = torch.tensor(pair.continuation)[:, None]
    return logprobs.log_softmax(-1)[-len(said) :].gather(1, said)[:, 0]


def _norm(self: torch.nn.Module, hidden: Tensor) -> Tensor:
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)  # type: ignore[operator]
    return self.weight * hidden * scale  # type: ignore[operator]


def drawn() -> list[Pair]:
    draw = torch.Generator().manual_seed(SEED)
    lengths = torch.randint(10, 60, (TEXTS,), generator=draw).tolist()
    scored = torch.randint(1, 20, (TEXTS,), generator=draw).tolist()
    texts = [torch.randint(1, 49000, (length,), generator=draw).tolist() for length in lengths]
    cuts = [max(2, len(text) - count) for text, count in zip(texts, scored, strict=True)]
    return [Pair(tuple(text[:cut]), tuple(text[cut:])) for text, cut in zip(texts, cuts, strict=True)]


def main() -> None:
    model = load_model(MODEL, dtype="float32", device="cpu")
    pairs, lm = drawn(), model.lm
    found = {"ours, batched": [one.logprob for one in likelihoods(fit("direct", model), pairs)]}
    each = [own(lm, pair) for pair in pairs]
    found["hf"] = [float(one.sum()) for one in each]
    found["hf, summed in float64"] = [float(one.double().sum()) for one in each]
    lm.double()
    norm = type(lm.model.norm)  # type: ignore[union-attr]
    norm.forward = _norm  # type: ignore[method-assign, assignment]
    true = torch.tensor([float(own(lm, pair).sum()) for pair in pairs], dtype=torch.float64)
    print(f"{MODEL} ({model.provenance.sha256[:12]}…), {TEXTS} texts, {-true.max():.0f} to {-true.min():.0f} nats")
    for name, values in found.items():
        off = (torch.tensor(values, dtype=torch.float64) - true).abs()
        print(f"{name:24s} off by {off.max():.2e} at most, {off.pow(2).mean().sqrt():.2e} root mean square")


if __name__ == "__main__":
    main()
