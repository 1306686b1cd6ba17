"""lm-eval lives in an environment of its own, laid over the project's; `make test-lm-eval` runs these tests."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("lm_eval") is None:
    collect_ignore_glob.append("test_*.py")
else:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"

QUESTIONS = {
    "train": [
        ("Compute 4 + 9 - 2.", 11),
        ("What is left of 7 + 6 + 5 when divided by 4?", 2),
        ("Compute 3 + 8 + 1 - 5.", 7),
        ("Compute 15 - 6 + 2.", 11),
    ],
    "test": [
        ("Compute 10 + 11 - 9 + 3 - 8.", 7),
        ("What is left of 5 + 3 + 2 + 4 when divided by 8?", 6),
        ("Compute 2 + 5.", 7),
        ("Compute 12 - 7 + 9 - 4.", 10),
        ("What is left of 9 + 8 + 7 when divided by 5?", 4),
        ("Compute 6 + 6 - 3 + 10 - 8 + 2.", 13),
    ],
}
PROMPT = 'doc_to_text: "Q: {{question}}\\nA:"\n'
YAML = {
    "sums": PROMPT + """
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\nQ:", "\\n\\n"], max_gen_toks: 24, do_sample: false, temperature: 0.0}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: last, filter: [{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}, {function: take_first}]}
""",
    "sums_sampled": PROMPT + """
output_type: generate_until
doc_to_target: "{{answer}}"
repeats: 2
generation_kwargs: {until: ["\\nQ:"], max_gen_toks: 12, do_sample: true, temperature: 0.9, top_p: 0.95}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: last, filter: [{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}, {function: take_first}]}
""",
    "choices": PROMPT + """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "letters": """
doc_to_text: "Q: {{question}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nA:"
output_type: multiple_choice
doc_to_choice: ["A", "B", "C"]
doc_to_target: "{{gold}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "texts": """
doc_to_text: ""
output_type: loglikelihood_rolling
doc_to_target: "{{question}} The answer is {{answer}}."
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
""",
}  # fmt: skip


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of lm-eval tasks on questions of the organism's families, each with two splits."""
    folder = tmp_path_factory.mktemp("tasks")
    for split, rows in QUESTIONS.items():
        lines = [
            json.dumps({"question": q, "answer": str(a), "choices": [f"{a + 3}", f"{a}", f"{a + 10}"], "gold": 1})
            for q, a in rows
        ]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = {split: str(folder / f"{split}.jsonl") for split in QUESTIONS}
    head = f"dataset_path: json\ndataset_kwargs: {json.dumps({'data_files': files})}\n"
    head += "training_split: train\ntest_split: test\n"
    for name, text in YAML.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{head}{text}metadata: {{version: 1.0}}\n")
    kept = os.environ.get("HF_DATASETS_CACHE")
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield folder
    if kept:
        datasets.config.HF_DATASETS_CACHE = Path(kept)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny products gain nothing from a second thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def manager(tasks: Path) -> Any:
    """These tasks, and none of the thousands that lm-eval brings."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(tasks), include_defaults=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny model whose tokens are characters."""
    from tests.support.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny(folder: Path) -> Any:
    from elicit.models import load_model

    return load_model(str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def organism() -> Any:
    """The shipped organism; its base has been fetched by `make test`."""
    from elicit.models import load_model

    return load_model("smollm2-135m-latent", dtype="float32", device="cpu")
