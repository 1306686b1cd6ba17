"""The prompt's details on the command line and in a configuration: one prompt, whichever way it is given."""

from __future__ import annotations

from pathlib import Path

from elicit.evaluation.run import Store
from elicit.models import load_model
from tests.cli.test_cli import elicit
from tests.evaluation.test_identity import task_file

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)


def test_details_of_a_prompt_are_options_of_a_run(tiny_folder: Path, tmp_path: Path) -> None:
    folder, task = tmp_path / "model", str(task_file(tmp_path))
    model = load_model(str(tiny_folder), dtype="float32")
    model.tokenizer.chat_template = TEMPLATE
    model.lm.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (tmp_path / "run.toml").write_text(
        f'model = "{folder}"\ntask = "{task}"\nmethod = "direct"\nprompt = "chat"\nlimit = 2\nmax-new-tokens = 2\n'
        "[options]\nsystem = \"Say 'x', please.\"\n[options.template]\nenable_thinking = false\n"
    )
    common = (
        "run",
        "--model",
        str(folder),
        "--task",
        task,
        "--method",
        "direct",
        "--limit",
        "2",
        "--max-new-tokens",
        "2",
    )
    given = ("--prompt", "chat", "--set", "system=Say 'x', please.", "--set", "template.enable_thinking=false")
    prompts = []
    for name, options in (("file", ("run", "--config", "run.toml")), ("line", (*common, *given))):
        done = elicit(*options, "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        prompts.append(Store.read(tmp_path / name).config["arms"]["direct"]["prompt"])
    assert prompts[0] == prompts[1]
    assert prompts[0]["system"] == "Say 'x', please." and prompts[0]["arguments"] == '{"enable_thinking": false}'
    for wrong, words in (
        (("--prompt", "qa", "--set", "system=x"), "go with chat prompts alone"),
        (("--prompt", "chat", "--set", "template.enable_thinkin=false"), "reads none of that name"),
        (("--prompt", "chat", "--set", "template=3"), "give its arguments by name"),
    ):
        done = elicit(*common, *wrong, "--out", "none", cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr
        assert not (tmp_path / "none").exists()
