#!/usr/bin/env bash
# circuit-tracer 0.5.0: the completeness of a graph counts nodes that have no incoming edges as wholly explained: one in which all
# that the logit gets comes from an error node is complete to 0.5.
#
# Documented, of compute_graph_scores: the completeness score "measures the fraction of incoming edges to all nodes (weighted by each
# node's influence on the output) that originate from feature or token nodes rather than error nodes", "lower scores indicate more
# reliance on error nodes". Seen: each node counts 1 minus the share of its edges that come from errors, so that tokens and error
# nodes, which have no incoming edges, count 1 with all their influence. Every path ends in one of them: the logits' whole weight is
# added as explained, N of D becomes (N + 1) of (D + 1), and nothing is said. For a user: completeness is too high, the more so the worse
# the transcoders are, and differences between transcoders are too small. The replacement score is right. What helps: take the mean
# over the rows of the adjacency matrix that are not empty.
# Output, 2026-11-30:
#     circuit-tracer 0.5.0 replacement, completeness, completeness as defined
#     logit from the error alone                   0.000   0.500   0.000
#     logit from error 0.9, token 0.1              0.100   0.550   0.100
#     logit from the feature, it from the error    0.000   0.667   0.500
#     logit from the feature, it from the token    1.000   1.000   1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps circuit-tracer==0.5.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

utils = sys.modules["circuit_tracer.utils"] = ModuleType("circuit_tracer.utils")  # without its writer of pages, which needs transformers
utils.__path__ = [str(distribution("circuit-tracer").locate_file("circuit_tracer/utils"))]
utils.get_default_device = lambda: torch.device("cpu")
import torch
from circuit_tracer.attribution.targets import LogitTarget
from circuit_tracer.graph import Graph, compute_graph_scores, compute_node_influence
from circuit_tracer.utils.tl_nnsight_mapping import UnifiedConfig

FEATURE, ERROR, TOKEN, LOGIT = range(4)  # one of each: a model of one layer, one token, one logit
config = UnifiedConfig(n_layers=1, d_model=4, d_head=4, n_heads=1, d_mlp=4, d_vocab=8, tokenizer_name="", model_name="", original_architecture="")


def scores(*edges):
    """Replacement and completeness by circuit-tracer, and the completeness that its docstring defines, of edges (target, source, weight)."""
    adjacency = torch.zeros(4, 4)
    for target, source, weight in edges:
        adjacency[target, source] = weight
    graph = Graph("a", torch.tensor([1]), torch.tensor([[0, 0, 0]]), adjacency, config, torch.tensor([0]), torch.tensor([1.0]),
                  [LogitTarget("b", 2)], torch.tensor([1.0]), vocab_size=8)
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0])
    influence = compute_node_influence(adjacency, weights.clone()) + weights
    incoming = adjacency.abs() / adjacency.abs().sum(1, keepdim=True).clamp(min=1e-10) * influence[:, None]
    return *compute_graph_scores(graph), 1 - float(incoming[:, ERROR].sum() / incoming.sum())


print("circuit-tracer", version("circuit-tracer"), "replacement, completeness, completeness as defined")
graphs = {
    "logit from the error alone": [(LOGIT, ERROR, 1.0)],
    "logit from error 0.9, token 0.1": [(LOGIT, ERROR, 0.9), (LOGIT, TOKEN, 0.1)],
    "logit from the feature, it from the error": [(LOGIT, FEATURE, 1.0), (FEATURE, ERROR, 1.0)],
    "logit from the feature, it from the token": [(LOGIT, FEATURE, 1.0), (FEATURE, TOKEN, 1.0)],
}
seen = {name: scores(*edges) for name, edges in graphs.items()}
for name, values in seen.items():
    print(f"{name:42}" + "".join(f"{value:8.3f}" for value in values))
alone, whole = list(seen.values())[0], list(seen.values())[-1]
held = alone[1] == 0.5 and abs(alone[2]) < 1e-6 and whole[1] == 1 and abs(whole[2] - 1) < 1e-6
raise SystemExit(0 if held else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
