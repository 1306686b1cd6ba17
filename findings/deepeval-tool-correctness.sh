#!/usr/bin/env bash
# deepeval 4.3.1: an agent that makes each call that is expected, one tool twice, has 0.67 for tool correctness.
#
# Documented: "Tool Correctness = Number of Correctly Used Tools (or Correct Input Parameters/Outputs) / Total Number of
# Tools Called"; a score of 1 is for every tool "called correctly", and with should_consider_ordering the calls
# WebSearch, WebSearch, ToolQuery are to be correct where WebSearch, ToolQuery, WebSearch are expected (page of the
# metric). Seen: a call that was matched is put into a set, and calls of one name, input and output are equal, so that
# the second of them is taken for matched already: ten searches where ten are expected have 0.10, by a reason that names
# no missing tool. The score is divided by the number of tools expected, not called: twenty calls more cost nothing. And
# the page's example of ordering has 0.67. Nothing is said. For a user: agents that have to call a tool again, such as
# to turn a page, are marked down, and those that call everything are not. What helps: should_exact_match=True, or a
# Counter of names and arguments of one's own.
# Output, 2026-11-30:
#     deepeval 4.3.1, ToolCorrectnessMetric
#     the three calls as expected, two are WebSearch  expected 1.00, seen 0.67
#     ten calls of WebSearch as expected              expected 1.00, seen 0.10
#     the two calls expected, in their order          expected 1.00, seen 1.00
#     the documented example of ordering              expected 1.00, seen 0.67
#     the two calls expected and twenty of Delete     expected 0.09, seen 1.00
#     reason of the first: Incomplete tool usage: missing tools []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps deepeval==4.3.1
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

from pydantic import BaseModel

for name in ("deepeval", "deepeval.metrics", "deepeval.metrics.tool_correctness", "deepeval.test_case"):
    package = sys.modules[name] = ModuleType(name)  # without what judges by a language model
    package.__path__ = [str(distribution("deepeval").locate_file(name.replace(".", "/")))]
for name in ("config", "config.eval_mode", "dataset", "dataset.expectations", "metrics.indicator", "metrics.utils",
             "metrics.tool_correctness.schema", "models", "templates", "test_case.mcp", "utils"):
    sys.modules["deepeval." + name] = MagicMock()
sys.modules["deepeval.utils"].make_model_config = lambda **options: {"arbitrary_types_allowed": True, **options}
sys.modules["deepeval.dataset.expectations"].Expectations = BaseModel
for name in ("MCPServer", "MCPPromptCall", "MCPResourceCall", "MCPToolCall"):
    setattr(sys.modules["deepeval.test_case.mcp"], name, BaseModel)
sys.modules["deepeval.metrics"].BaseMetric = object
sys.modules["deepeval.metrics.utils"].initialize_model = lambda *_: (MagicMock(), True)
from deepeval.test_case import llm_test_case

vars(sys.modules["deepeval.test_case"]).update(vars(llm_test_case))
from deepeval.metrics.tool_correctness.tool_correctness import ToolCorrectnessMetric
from deepeval.test_case.llm_test_case import ToolCall


def score(called, expected, **options):
    """The metric's deterministic score, which `measure` returns where no available tools are given, and its reason."""
    metric = ToolCorrectnessMetric(**options)
    metric.tools_called, metric.expected_tools = ([ToolCall(name=name) for name in one] for one in (called, expected))
    return round(metric._calculate_score(), 2), metric._generate_reason().split(";")[0]


W, Q = "WebSearch", "ToolQuery"
print(f"deepeval {version('deepeval')}, ToolCorrectnessMetric")
rows = {
    "the three calls as expected, two are WebSearch": ("1.00", score([W, Q, W], [W, Q, W])),
    "ten calls of WebSearch as expected": ("1.00", score([W] * 10, [W] * 10)),
    "the two calls expected, in their order": ("1.00", score([W, Q], [W, Q], should_consider_ordering=True)),
    "the documented example of ordering": ("1.00", score([W, W, Q], [W, Q, W], should_consider_ordering=True)),
    "the two calls expected and twenty of Delete": ("0.09", score([W, Q] + ["Delete"] * 20, [W, Q])),
}
for name, (expected, (seen, _)) in rows.items():
    print(f"{name:47} expected {expected}, seen {seen:.2f}")
print("reason of the first:", next(iter(rows.values()))[1][1])
as_stated = [seen for _, (seen, _) in rows.values()] == [0.67, 0.1, 1.0, 0.67, 1.0]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
