#!/usr/bin/env bash
# lm-eval 0.4.13: in `gsm8k_cot_self_consistency` samples without an answer vote, all for one answer, and 1,000 and 1000 are two.
#
# Documented: the task is self-consistency, whose paper (arXiv 2203.11171) takes the answer that most samples give; `regex` "extracts
# matched values" and else "returns a fallback value", `majority_vote` takes "the response that occurs most frequently", and the task's
# metric ignores commas. Seen: the fallback "[invalid]" of every sample that was cut or says it otherwise is counted as one answer, so
# that three samples of eight that agree lose to four that say nothing, and the question is wrong; and answers are counted as they are
# written, before the metric makes 1,000 and 1000 one, so that six samples that agree may lose to four that agree. For a user: maj@k of
# a model that thinks long, or is often cut, is too low, and may be below one sample's; it does not compare with other suites' votes.
# Output, 2026-11-29:
#     lm-eval 0.4.13, maj@8 of the task's own filters: 3 × 18, 1 × 20, 4 × no answer: voted '[invalid]'
#     lm-eval 0.4.13, maj@64 of the task's own filters: 3 × 1,000, 3 × 1000, 4 × 990: voted '990'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lm_eval==0.4.13
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.instance import Instance
from lm_eval.filters import build_filter_ensemble

file = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k-cot-self-consistency.yaml"
chains = {one["name"]: one["filter"] for one in yaml.safe_load(file.read_text())["filter_list"]}


def voted(name, answers):
    """What the task's own filters make of samples that give these answers; None: it was cut before it gave one."""
    request = Instance("generate_until", {}, ("", {}), 0)
    request.resps = ["Let us see. First" if a is None else f"So it is. The answer is {a}." for a in answers]
    steps = [(one["function"], {k: v for k, v in one.items() if k != "function"}) for one in chains[name]]
    build_filter_ensemble(name, steps).apply([request])
    return request.filtered_resps[name]


cut = voted("maj@8", ["18", "18", "18", "20", None, None, None, None])
written = voted("maj@64", ["1,000", "1000", "1,000", "1000", "1,000", "1000", "990", "990", "990", "990"])
said = f"lm-eval {version('lm_eval')}, maj@{{}} of the task's own filters: {{}}: voted {{!r}}"
print(said.format(8, "3 × 18, 1 × 20, 4 × no answer", cut))
print(said.format(64, "3 × 1,000, 3 × 1000, 4 × 990", written))
raise SystemExit(0 if (cut, written) == ("[invalid]", "990") else 1)  # 1: it is otherwise now
PYTHON
