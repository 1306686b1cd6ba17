"""How features fire over texts, in whatever order they are asked for; against a slow reading: see tests/report."""

from __future__ import annotations

from pathlib import Path

import torch

from probes.sae import SAE
from probes.sae.activity import read_activity, values_in
from tests.support.saes import save_random_sae
from tests.support.tiny import VOCAB, tiny_model


def test_all_features_in_another_order_keep_their_own_values(tmp_path: Path) -> None:
    """As many as the SAE has, but not in its order: each was given another's."""
    lm, sae = tiny_model("llama"), SAE.load(save_random_sae(tmp_path / "sae"))
    g = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, VOCAB, (n,), generator=g).tolist() for n in (9, 20, 14)]
    order = torch.randperm(sae.d_sae, generator=g)
    plain = read_activity(lm, sae, texts)
    shuffled = read_activity(lm, sae, texts, order.tolist())
    for name in ("fired", "total", "counts", "value"):
        torch.testing.assert_close(getattr(shuffled, name), getattr(plain, name)[order], rtol=1e-4, atol=1e-4)
    expected = values_in(lm, sae, plain, texts)
    found = values_in(lm, sae, plain.of(order), texts)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values)
