#!/usr/bin/env bash
# sae-lens 6.54.12: run_evals compares a transcoder's output with its own input, and puts it in that input's place.
#
# Documented: `sae_lens.evals` is to "run evaluations on SAEs" of the registry by a pattern of names, which lists 26 releases of
# transcoders; a transcoder "maps activations from one hook point to another", and add_sae writes what it gives at hook_name_out. Seen:
# run_evals reads and writes at hook_name alone, for transcoders too: explained variance, cosine, MSE, the ratio of norms and KL and
# cross-entropy are those of a component that the model never has there, and nothing is said. A transcoder that equals its MLP to the last
# bit explains -1052% of the variance there, and its KL is 1.15 where the model with it attached gives the same logits. For a user: numbers
# of transcoders from this function or its command line mean nothing, all but L0 and L1. What helps: run_with_saes, which has the right
# sites, and one's own loss of its logits.
# Output, 2026-11-29:
#     sae-lens 6.54.12, a transcoder that is exactly the model's MLP: right, by run_evals
#     explained_variance      1.0000   -10.5222
#     cossim                  1.0000     0.0761
#     kl_div_with_sae         0.0000     1.1462
#     ce_loss_with_sae        5.1781     5.1924
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 transformer-lens==3.9.0 sae-lens==6.54.12
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import tokenizers, torch, transformers
from datasets import Dataset
from sae_lens import ActivationsStore, HookedSAETransformer, Transcoder, TranscoderConfig
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformerConfig

words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, **{f"w{i}": i for i in range(1, 50)}}, unk_token="<s>"))
transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="<s>", pad_token="<s>").save_pretrained("words")
torch.manual_seed(0)
lm = HookedSAETransformer(HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=16, d_head=8, d_mlp=48, d_vocab=50, act_fn="relu",
                                                  normalization_type="LNPre"), transformers.AutoTokenizer.from_pretrained("words"))
for weight in lm.parameters():
    torch.nn.init.normal_(weight, std=0.4 if weight.ndim > 1 else 0.1)

# The MLP of layer 0, as a transcoder: relu(x W_in + b_in) W_out + b_out.
site = SAEMetadata(hook_name="blocks.0.ln2.hook_normalized", hook_name_out="blocks.0.hook_mlp_out", hook_head_index=None, prepend_bos=True)
exact = Transcoder(TranscoderConfig(d_in=16, d_out=16, d_sae=48, apply_b_dec_to_input=False, metadata=site))
exact.load_state_dict({"W_enc": lm.W_in[0], "b_enc": lm.b_in[0], "W_dec": lm.W_out[0], "b_dec": lm.b_out[0]})

torch.manual_seed(1)
ids = torch.randint(1, 50, (16, 16))
with torch.no_grad():
    logits, cache = lm.run_with_cache(ids)
    target, given = cache[site.hook_name_out].flatten(0, 1), exact(cache[site.hook_name]).flatten(0, 1)
    attached = lm.run_with_saes(ids, saes=[exact]).log_softmax(-1)
    right = {
        "explained_variance": 1 - float((target - given).pow(2).sum() / (target - target.mean(0)).pow(2).sum()),
        "cossim": float(torch.cosine_similarity(target, given, dim=-1).mean()),
        "kl_div_with_sae": float((logits.softmax(-1) * (logits.log_softmax(-1) - attached)).sum(-1).mean()),
        "ce_loss_with_sae": -float(attached[:, :-1].gather(-1, ids[:, 1:, None]).mean()),
    }
store = ActivationsStore.from_sae(lm, exact, Dataset.from_dict({"tokens": ids.tolist()}), context_size=16, store_batch_size_prompts=8)
seen, _ = run_evals(exact, store, lm, ActivationScaler(), get_eval_everything_config(8, 2, 2))
seen = {name: value for group in seen.values() for name, value in group.items()}
print(f"sae-lens {version('sae-lens')}, a transcoder that is exactly the model's MLP: right, by run_evals")
for name, value in right.items():
    print(f"{name:20} {value:9.4f}  {seen[name]:9.4f}")
raise SystemExit(0 if right["explained_variance"] > 0.999 and seen["explained_variance"] < 0 else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
