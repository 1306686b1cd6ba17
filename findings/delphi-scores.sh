#!/usr/bin/env bash
# delphi (eai-delphi) 0.1.3: a latent's last examples are lost, and none is counted as failed; layers.10 is layers.1.
#
# Documented: num_examples_per_scorer_prompt is the "Number of examples to use for each scorer prompt. Using more than
# 1 improves scoring speed" (RunConfig); the summary has the "Average fraction of failed examples" and the plots an F1
# of each module's latents. Seen: (1) where the number of examples cannot be divided by it, the last prompt has fewer,
# and the right number of answers to it is refused, with a line in the log, so that up to 40 of 100 examples have no
# prediction; (2) failed_count is the number of valid rows less that same number, always 0; (3) a module's files are
# looked for by *NAME*, so that those of layers.10 to layers.19 are read as layers.1's too, and their examples are in
# its F1. For a user: scores of other batch sizes are of other examples while the summary says that none failed, and
# the F1 of a layer in whose name another's begins is a mean of several. What helps: a batch size that divides the
# number of examples, and one run for each hookpoint.
# Output, 2026-11-30:
#     delphi 0.1.3, a scorer that is always right about 50 examples and 50 others
#       5 examples a prompt:  100 scored, 0 failed
#      20 examples a prompt:  100 scored, 0 failed
#      30 examples a prompt:   90 scored, 0 failed
#      40 examples a prompt:   80 scored, 0 failed
#      60 examples a prompt:   60 scored, 0 failed
#     layers scored: alone; examples and F1 of latent 0: {'layers.1': (100, 1.0)}
#     layers scored: both; examples and F1 of latent 0: {'layers.1': (200, 0.5), 'layers.10': (100, 0.0)}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 jaxtyping==0.3.11 orjson==3.13.0 pandas==3.1.1 plotly==7.1.0 scikit-learn==1.9.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps eai-delphi==0.1.3
cd "$folder"
cat > tried.py <<'PYTHON'
import asyncio
import json
import logging
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType

for name in ("blobfile", "transformers"):  # named, and not used here
    sys.modules[name] = ModuleType(name)
sys.modules["transformers"].PreTrainedTokenizer = sys.modules["transformers"].PreTrainedTokenizerFast = object
for name in ("delphi", "delphi.latents", "delphi.scorers", "delphi.scorers.classifier", "delphi.clients", "delphi.log"):
    package = sys.modules[name] = ModuleType(name)  # without what needs vLLM and sparsify
    package.__path__ = [str(distribution("eai-delphi").locate_file(name.replace(".", "/")))]
sys.modules["delphi"].logger = logging.getLogger("delphi")
logging.disable(logging.CRITICAL)
import orjson
import torch
from delphi.latents import latents

for name in ("ActivatingExample", "Latent", "LatentRecord", "NonActivatingExample"):
    setattr(sys.modules["delphi.latents"], name, getattr(latents, name))
from delphi.clients.client import Client, Response
from delphi.log.result_analysis import add_latent_f1, get_agg_metrics, load_data
from delphi.scorers.classifier.detection import DetectionScorer


class Perfect(Client):
    """A scorer that is right about every example that it is asked about."""

    def __init__(self):
        pass

    async def generate(self, prompt, **_):
        asked = [line for line in prompt[-1]["content"].splitlines() if line.startswith("Example ")]
        return Response(text=json.dumps([int("yes" in line) for line in asked]))


def record(module):
    examples = [[kind(torch.arange(2), torch.tensor([0.0, value]), str_tokens=[" so", word], **more) for _ in range(50)]
                for kind, value, word, more in ((latents.ActivatingExample, 1.0, " yes", {"quantile": 0}),
                                                (latents.NonActivatingExample, 0.0, " no", {"distance": -1.0}))]
    made = latents.LatentRecord(latents.Latent(module, 0), test=examples[0], not_active=examples[1])
    made.explanation = "the word yes"
    return made


def counted(folder, modules):
    """The log of how often latent 0 of each module fired, which delphi's cache writes."""
    (folder / "log").mkdir()
    torch.save({module: torch.tensor([100]) for module in modules}, folder / "log" / "hookpoint_firing_counts.pt")


print(f"delphi {version('eai-delphi')}, a scorer that is always right about 50 examples and 50 others")
kept = {}
for shown in (5, 20, 30, 40, 60):
    result = asyncio.run(DetectionScorer(Perfect(), n_examples_shown=shown)(record("layers.1")))
    folder = Path(f"scores-{shown}/scores/detection")
    folder.mkdir(parents=True)
    counted(folder.parent.parent, ["layers.1"])
    (folder / "layers.1_latent0.txt").write_bytes(orjson.dumps(result.score))
    row = get_agg_metrics(*load_data(folder.parent, ["layers.1"])).iloc[0]  # what the summary is printed from
    kept[shown] = int(row.total_examples), int(row.failed_count)
    print(f"{shown:3} examples a prompt: {kept[shown][0]:4} scored, {kept[shown][1]} failed")

folder = Path("layers/scores/detection")
folder.mkdir(parents=True)
modules = ["layers.1", "layers.10"]
counted(Path("layers"), modules)
result = asyncio.run(DetectionScorer(Perfect(), n_examples_shown=5)(record("layers.1"))).score
(folder / "layers.1_latent0.txt").write_bytes(orjson.dumps(result))
for example in result:  # of the other layer's latent the scorer takes every example for its opposite
    example.prediction, example.correct = not example.prediction, False
(folder / "layers.10_latent0.txt").write_bytes(orjson.dumps(result))
f1 = {}
for name, chosen in (("alone", ["layers.1"]), ("both", modules)):
    if name == "alone":
        (folder / "layers.10_latent0.txt").rename("aside")
    table, counts = load_data(folder.parent, chosen)
    if name == "alone":
        Path("aside").rename(folder / "layers.10_latent0.txt")
    table = add_latent_f1(table)
    f1[name] = {module: (len(rows), float(rows.f1_score.iloc[0])) for module, rows in table.groupby("module")}
    print(f"layers scored: {name}; examples and F1 of latent 0:", f1[name])
lost = kept[20] == (100, 0) and kept[30] == (90, 0) and kept[60] == (60, 0)
mixed = f1["alone"]["layers.1"] == (100, 1) and f1["both"]["layers.1"][0] == 200 and f1["both"]["layers.1"][1] < 0.9
raise SystemExit(0 if lost and mixed else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
