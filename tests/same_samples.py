"""Whether two states of the code do the same: every method's fixed-seed samples, before and after, in fp32.

    python tests/same_samples.py COMMIT [COMMIT2] [--but FIELD ...]     COMMIT2 is the working tree unless given

Both states run the same commands, in processes of their own and with the same tiny random models; then samples,
metrics and the tensors of what was fitted are compared to the last digit; `--but FIELD` leaves out what one of them
does not write yet. Nothing of the package is imported here, so
that its modules may lie elsewhere in the two states. Exit code 0: all equal; 1: something differs, or does not run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
# The last two carry a hash of what was asked.
ABSENT, IGNORED = "(absent)", {"seconds", "fit_seconds", "folder", "search_run"}
# What every run is given; each is small, and none is refused by the tiny models.
SHARED = "--model {model} --task {task} --limit 8 --max-new-tokens 24 --dtype float32 --device cpu"
SEARCH = "sae={sae} candidates=2 strengths=1,4 dev=4 read=6 checked=false"
TRANSFER = "partner={partner} categories=2 layers=1 read=8 dev=4 checked=false reading=mean"
CRITIQUES = "candidates=4 steps=2 rows=1 width=700 rank=2 lr=0.01"
RLVR = "reward=exact+random:0.5 updates=2 rollouts=8 group=4 rollout_tokens=6 rank=2 pool=3 check_every=1 check=3"
# Method, what it is compared with, its settings.
RUNS = (
    ("direct", "--against cot-prompt", ""),
    ("cot-prompt", "--against direct@budget", ""),
    ("self-consistency", "--against direct@budget,cot-prompt@budget", "samples=4 top_p=0.9 top_k=40 min_p=0.01"),
    ("cot-decoding", "--controls", "k=4"),
    ("sae-steer", "--controls", SEARCH),
    ("vector-transfer", "--controls", f"{TRANSFER} coefficients=1,4"),
    ("vector-transfer", "--against direct@budget", f"{TRANSFER} coefficients=head gate=probe"),
    ("critique-ft", "--controls", f"{CRITIQUES} source={{critiques}} problems=0"),
    ("critique-ft", "--against direct@budget", f"{CRITIQUES} source=symbolic"),
    ("one-shot-rlvr", "--controls", RLVR),
    ("one-shot-rlvr", "--against direct@budget", RLVR),
)
FITTED = ("sae-steer", "vector-transfer", "critique-ft", "one-shot-rlvr")


def make_inputs(folder: Path) -> dict[str, Path]:
    """Two models that read characters, an SAE, a task and critiques of it: for each its path."""
    names = ("model", "partner", "sae", "task.jsonl", "critiques.jsonl")
    paths = {name.split(".")[0]: folder / name for name in names}
    vocabulary = {c: i for i, c in enumerate(["<end>", *(chr(c) for c in range(32, 127)), "\n"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<end>"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).float()
    generator = torch.Generator().manual_seed(1)
    for name, kept, drawn in (("model", 0.0, 1.0), ("partner", 1.0, 0.3)):  # the partner is the model, changed
        for where, weight in lm.named_parameters():
            if weight.ndim > 1:
                size = drawn if "embed" in where else drawn / 4
                weight.data = kept * weight.data + size * torch.randn(weight.shape, generator=generator)
        lm.save_pretrained(paths[name])
        fast.save_pretrained(paths[name])

    paths["sae"].mkdir()
    decoder = torch.nn.functional.normalize(torch.randn(64, 32, generator=generator), dim=-1)
    tensors = {"W_enc": decoder.T.contiguous(), "W_dec": decoder, "b_enc": torch.zeros(64), "b_dec": torch.zeros(32)}
    save_file(tensors, paths["sae"] / "sae_weights.safetensors")
    about = {
        "architecture": "topk", "k": 8, "d_in": 32, "d_sae": 64, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"hook_name": "blocks.2.hook_resid_post", "model_name": "tiny"},
    }  # fmt: skip
    (paths["sae"] / "cfg.json").write_text(json.dumps(about))

    sums = [(split, n, m) for m, split in enumerate(("fit", "dev", "test")) for n in range(8)]
    task = [{"id": f"{s}-{n}", "split": s, "question": f"What is {n} + {m}?", "answer": str(n + m)} for s, n, m in sums]
    critiques = [
        {"question": item["question"], "candidate": f"It is {n}.", "critique": f"I see {n}. Conclusion: {verdict}"}
        for item in task[:2]
        for n, verdict in enumerate(("right", "wrong", "wrong"))
    ]
    for name, lines in (("task", task), ("critiques", critiques)):
        paths[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def git(*arguments: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")


def python(tree: Path, folder: Path, *arguments: str) -> str:
    """What Python prints in this folder with the tree's package; a RuntimeError with its last line where it fails."""
    given = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=given, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"does not run {folder.name}: {last}")
    return done.stdout


def check_imported(tree: Path, folder: Path) -> None:
    found = python(tree, folder, "-c", "import elicit; print(elicit.__file__)").strip()
    if not Path(found).is_relative_to(tree):
        raise SystemExit(f"{found} is imported instead of the package in {tree}")


def check_complete(tree: Path, folder: Path) -> None:
    """A method that RUNS lacks would not be compared."""
    methods = {row["method"] for row in json.loads(python(tree, folder, "-m", "elicit", "methods", "--json"))}
    if left := methods - {method for method, *_ in RUNS}:
        raise SystemExit(f"no run here is of {', '.join(sorted(left))}; add one to RUNS")


def contents(run: Path, but: list[str]) -> dict[str, Any]:
    """What is compared of a run: for each file its content, tensors as lists; of its metrics all but these fields."""
    lines = (run / "samples.jsonl").read_text().splitlines()
    samples = {f"line {n}": {**json.loads(line), "sum": None} for n, line in enumerate(lines, start=1)}
    tensors = {
        str(file.relative_to(run)): {name: [str(t.dtype), t.tolist()] for name, t in load_file(file).items()}
        for file in sorted((run / "elicited").rglob("*.safetensors"))
    }
    metrics = json.loads((run / "metrics.json").read_text())
    but = [*but, "files", "sha256"]  # hashes of files that hold paths and seconds
    return {"samples.jsonl": samples, **tensors, "metrics.json": {k: v for k, v in metrics.items() if k not in but}}


def difference(before: Any, after: Any, where: str = "") -> str:
    """Where two contents first differ, with both values; nothing where they are equal."""
    if isinstance(before, dict) and isinstance(after, dict):
        fields = [(k, before.get(k, ABSENT), after.get(k, ABSENT)) for k in {**before, **after} if k not in IGNORED]
    elif isinstance(before, list) and isinstance(after, list):
        fields = [(n, *pair) for n, pair in enumerate(zip_longest(before, after, fillvalue=ABSENT))]
    else:  # as JSON: 1 is not 1.0 nor true, -0.0 is not 0.0, and NaN is itself
        differ = json.dumps(before) != json.dumps(after)
        return f"{where}: {before!r:.60} before, {after!r:.60} after" if differ else ""
    found = (difference(a, b, f"{where}, {field}" if where else str(field)) for field, a, b in fields)
    return next(filter(None, found), "")


def compared(trees: dict[Path, Path], method: str, arguments: list[str], out: str, but: list[str]) -> tuple[bool, str]:
    """Run a method in each folder with its tree; whether the same came out, and what."""
    made = []
    for folder, tree in trees.items():
        try:
            python(tree, folder, "-m", "elicit", "run", "--method", method, *arguments, "--out", out)
        except RuntimeError as error:
            return False, str(error)
        made.append(contents(folder / out, but))
    samples, *tensors, _ = (len(content) for content in made[0].values())
    counted = f"{samples} samples, {sum(tensors)} tensors"
    if not samples or (method in FITTED and not sum(tensors)):
        return False, f"nothing to compare: {counted}"
    found = difference(*made)
    return not found, f"different: {found}" if found else f"equal: {counted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("commit", metavar="COMMIT", help="the state before")
    parser.add_argument("commit2", metavar="COMMIT2", nargs="?", help="the state after; the working tree unless given")
    parser.add_argument("--but", metavar="FIELD", nargs="+", default=[], help="fields of metrics.json not to compare")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the work trees go then as well
    same, trees = True, {}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        place = Path(temporary).resolve()
        for name, commit in (("before", given.commit), ("after", given.commit2)):
            tree = place / f"tree {name}" if commit else ROOT
            if commit:
                git("worktree", "add", "--quiet", "--detach", str(tree), commit)
                stack.callback(git, "worktree", "remove", "--force", str(tree))
            (place / name).mkdir()
            check_imported(tree, place / name)
            trees[place / name] = tree
        check_complete(tree, place / name)
        paths = make_inputs(place)
        for number, (method, against, settings) in enumerate(RUNS):
            chosen = [part for one in settings.split() for part in ("--set", one.format(**paths))]
            shared = [part.format(**paths) for part in f"{against} {SHARED}".split()]
            equal, said = compared(trees, method, [*shared, *chosen], f"run-{number}", given.but)
            print(f"{method} {against}: {said}", flush=True)
            same = same and equal
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
