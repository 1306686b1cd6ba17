"""Logs that Inspect, verl and TRL wrote (`logs/`), as runs; and runs written as logs of others and read back."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elicit.analysis import ANALYSES, analyse
from elicit.evaluation.imported import Verdicts, import_logs
from elicit.evaluation.regrade import regrade
from elicit.evaluation.run.bounded import Zipped
from elicit.evaluation.run.foreign import Wanted, read_log
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.to_every_eval_ever import write_every_eval_ever
from elicit.evaluation.run.to_inspect import write_inspect
from elicit.models import Model
from elicit.report.page import render
from elicit.report.run_section import reading_head
from probes.errors import UserError
from tests.support.planted import planted, questions, samples
from tests.support.shell import shell

LOGS = Path(__file__).parent / "logs"
GOLD = {"q1": "7", "q2": "42", "q3": "6"}


def imported(folder: Path, **files: str) -> Run:
    return import_logs({name: LOGS / file for name, file in files.items()}, folder, verdicts=Verdicts(right=1.0))


# What a format holds


def test_an_inspect_zip_holds_questions_answers_scores_and_counts() -> None:
    log = read_log(LOGS / "base.eval")
    assert (log.format, log.model, log.task) == ("inspect", "mockllm/model", "sums")
    assert log.settings == {"temperature": 0.8, "max_new_tokens": 64}
    assert {(one.item, one.sample) for one in log.records} == {(item, n) for item in GOLD for n in range(4)}
    for one in log.records:
        assert one.gold == GOLD[one.item]
        assert one.text.endswith(f"So the answer is {one.answer}")
        assert one.score == float(one.answer == one.gold)
        assert (one.spent, one.prompt_tokens, one.finish, one.tokens) == (11, 7, "stop", None)
    assert {one.metadata["level"] for one in log.records} == {0, 1, 2}


def test_reasoning_that_stands_apart_comes_before_the_answer_in_tags() -> None:
    log = read_log(LOGS / "reasoning.json")
    assert log.records[0].text.startswith(f"<think>\nThey ask: {log.records[0].prompt}\n</think>\n\nSo the answer is ")


def test_verl_tells_questions_apart_by_their_prompt() -> None:
    log = read_log(LOGS / "verl/100.jsonl")
    assert [one.sample for one in log.records] == [0, 1, 2, 3] * 3
    assert len({one.item for one in log.records}) == 3
    assert {one.gold for one in log.records} == set(GOLD.values())
    assert {one.score for one in log.records} == {-1.0, 1.0}
    by_accuracy = read_log(LOGS / "verl/100.jsonl", wanted=Wanted(score="acc"))
    assert [one.score for one in by_accuracy.records] == [float(one.score == 1) for one in log.records]
    assert all((one.answer == one.gold) == (one.score == 1) for one in log.records)


def test_trl_has_a_column_a_reward_function(tmp_path: Path) -> None:
    log = read_log(LOGS / "trl_one.parquet", wanted=Wanted(gold="answer"))
    assert {one.gold for one in log.records} == {"7", "42"}
    assert all(one.score == float(sum(map(ord, one.text)) % 2 == 0) for one in log.records)
    with pytest.raises(UserError, match="rewards by even, length; choose one with --score"):
        read_log(LOGS / "trl_two.parquet")
    lengths = [one.score for one in read_log(LOGS / "trl_two.parquet", wanted=Wanted("length")).records]
    table = pq.read_table(LOGS / "trl_one.parquet")
    later = table.set_column(0, "step", pa.array(range(table.num_rows)))
    pq.write_table(later, tmp_path / "steps.parquet")
    with pytest.raises(UserError, match=r"row 2: of another step than the rows before; give a file of one step"):
        list(read_log(tmp_path / "steps.parquet").records)
    assert lengths == pytest.approx([0.6] * 8)


# A run of them


def test_a_run_of_logs_keeps_their_verdicts_and_invents_no_tokens(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", trained="trained.eval", base="base.eval")
    assert list(run.metrics["arms"]) == ["trained", "base"]
    for name, arm in run.metrics["arms"].items():
        log = read_log(LOGS / f"{name}.eval")
        right = {item: [one.score for one in log.records if one.item == item] for item in GOLD}
        assert {item: [t.score for t in some] for item, some in run.traces[name].items()} == right
        assert arm["tokens_per_item"] == 44 and arm["prompt_tokens_per_item"] == 7
        assert arm["found_by"] == {"the log": 12}
        assert not any(t.tokens or t.logprob for some in run.traces[name].values() for t in some)
    assert "from base" not in run.bottom_line and "over base" in run.bottom_line
    assert "calibration" not in run.metrics and set(run.metrics["readings"]) == {"greedy", "vote", "random", "oracle"}
    assert reading_head(run.metrics)[2] == "difference to base [95%]"
    alone = {"arms": {"trained": {}}}  # the differences are to what is there
    assert reading_head(alone)[2] == "difference to the greedy branch [95%]"
    page = render(run)
    assert "trained was read from trained.eval (inspect, model mockllm/model" in page


def test_what_is_not_counted_is_not_known(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", trained="verl/100.jsonl", base="verl/0.jsonl")
    assert run.metrics["arms"]["base"]["tokens_per_item"] is None
    found = analyse("pass-at-k", [run])
    assert found.data["base"] == "base"
    assert any("the log of base, trained does not count tokens" in note for note in found.notes)
    assert any("do not say the temperature" in note for note in found.notes)
    assert found.table[0]["tokens*"].startswith("–") and not found.more
    assert "tokens" in render(run)


def test_analyses_of_texts_and_verdicts_apply_and_others_refuse_by_name(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", trained="trained.eval", base="base.eval")
    for name in ("pass-at-k", "correction-harm", "format-share", "reflection"):
        assert analyse(
            name, [run], **({"baseline": "base"} if name in ("correction-harm", "format-share") else {})
        ).table
    with pytest.raises(UserError, match=r"needs the tokens of each answer .*trained\.eval"):
        analyse("where-it-acts", [run])
    lacking = dict.fromkeys(
        ("commitment", "faithfulness", "thought-anchors", "convergence-shift", "saved-steps"), "the model"
    )
    lacking |= {"weight-difference": "the weights", "bits-to-elicit": "what was done to the model"}
    for name, what in lacking.items():
        with pytest.raises(UserError, match=rf"needs {what}, .*trained\.eval"):
            analyse(name, [run])
    for name in (name for name, one in ANALYSES.items() if one.takes_runs):
        with suppress(UserError):  # any other exception is a fault
            analyse(name, [run])


def test_equations_and_another_task_can_be_asked_of_logs(tmp_path: Path) -> None:
    runs = []
    for task, first in (("near", 1), ("far", 9)):
        files = {}
        for name, wrong in (("trained", 2), ("base", 6)):
            said = [(n, n + 3 + (n < first + wrong)) for n in range(first, first + 8)]
            lines = [
                {"input": f"{n} + 3?", "output": f"{n} + 3 = {sum_}. The answer is {sum_}.", "gts": str(n + 3),
                 "score": float(sum_ == n + 3)} for n, sum_ in said
            ]  # fmt: skip
            files[name] = tmp_path / f"{task}-{name}.jsonl"
            files[name].write_text("\n".join(map(json.dumps, lines)))
        runs.append(import_logs(files, tmp_path / task, task=task))
    validity = {row["arm"].rpartition(": ")[2]: row["valid"] for row in analyse("corrupted-traces", runs[:1]).table}
    assert validity == {"trained": 0.75, "base": 0.25}
    (row,) = analyse("distribution-shift", runs, baseline="base").table
    assert row["axes"] == "task (name near → far)" and row["accuracy"] == "0.750 → 0.750"


def of_inspect(path: Path, right: Sequence[int], logprobs: Sequence[Any], spent: int = 2) -> Path:
    """A log of Inspect with a question for each of these; `logprobs` are those of its answer's tokens, or None."""
    log = json.loads((LOGS / "reasoning.json").read_text())
    first = log["samples"][0]
    log["samples"] = []
    for n, (is_right, some) in enumerate(zip(right, logprobs, strict=True)):
        sample = json.loads(json.dumps(first))
        (choice,) = sample["output"]["choices"]
        choice["message"]["content"] = "7" if is_right else "8"
        choice["logprobs"] = some and {"content": [{"token": "t", "logprob": p, "bytes": [116]} for p in some]}
        sample["output"]["usage"] = {"input_tokens": 3, "output_tokens": spent, "total_tokens": 3 + spent}
        scores = {"match": {"value": "C" if is_right else "I", "answer": "7" if is_right else "8"}}
        log["samples"].append({**sample, "id": f"q{n}", "input": f"{n}?", "target": "7", "scores": scores})
    path.write_text(json.dumps(log))
    return path


def test_log_probabilities_of_a_log_choose_among_its_answers_and_route(tmp_path: Path) -> None:
    right = [n % 3 > 0 for n in range(24)]
    sure = [[-0.1, -0.2] if is_right else [-2.0, -1.0 - n] for n, is_right in enumerate(right)]
    brief = of_inspect(tmp_path / "brief.json", right, sure)
    long = of_inspect(tmp_path / "long.json", [1] * 24, [None] * 24, spent=20)
    run = import_logs({"short": brief, "long": long}, tmp_path / "run")
    assert [run.traces["short"][f"q{n}"][0].logged for n in range(24)] == sure
    assert run.outcomes["short"]["q0"][0].mean_logprob == pytest.approx(-1.5)  # q0 is wrong: -2 and -1
    assert run.outcomes["short"]["q0"][0].total_logprob == pytest.approx(-3.0)
    assert run.outcomes["long"]["q0"][0].mean_logprob == -float("inf")
    found = analyse("routing", [run], short="short", long="long")
    assert list(found.data["gates"]) == ["log-probability a token"]
    gate = found.data["gates"]["log-probability a token"]
    assert gate["accuracy"] == 1.0 and 0 < gate["rate"] < 0.6
    with pytest.raises(UserError, match=r"\(long: 24 of 24 have none\).*brief\.json"):
        analyse("routing", [run], short="long", long="short")
    assert render(run)
    (again,) = [path for path in write_inspect(run, tmp_path) if path.stem == "short"]
    assert [one.score for one in read_log(again).records] == [float(is_right) for is_right in right]


def test_samples_with_log_probabilities_are_chosen_by_them(tmp_path: Path) -> None:
    log = json.loads(
        of_inspect(tmp_path / "log.json", [0, 1, 1, 0], [[-1.0], [-0.1], [-0.2, -0.2], [-0.3]]).read_text()
    )
    for n, sample in enumerate(log["samples"]):
        sample.update({"id": f"q{n // 2}", "epoch": n % 2 + 1, "input": f"{n // 2}?"})
    (tmp_path / "log.json").write_text(json.dumps(log))
    run = import_logs({"sampled": tmp_path / "log.json"}, tmp_path / "run")
    readings = {name: one["accuracy"] for name, one in run.metrics["readings"].items()}
    assert readings["mean-logprob"] == 1.0 and readings["greedy"] == 0.5
    assert readings["logprob"] == 0.5  # the shorter answer of the second question
    plain = imported(tmp_path / "plain", trained="trained.eval")
    assert "mean-logprob" not in plain.metrics["readings"]


def test_log_probabilities_that_are_none_are_refused_by_their_place(tmp_path: Path) -> None:
    for wrong in (float("nan"), 0.5, "-0.1", None, -float("inf"), True):
        with pytest.raises(UserError, match=r"answer 2: a token's log-probability is .*expected a number of 0 or less"):
            read_log(of_inspect(tmp_path / "log.json", [1, 1], [[-0.1], [-0.2, wrong]]))
    log = json.loads(of_inspect(tmp_path / "log.json", [1], [[-0.1]]).read_text())
    log["samples"][0]["output"]["choices"][0]["logprobs"] = [-0.1]
    (tmp_path / "log.json").write_text(json.dumps(log))
    with pytest.raises(UserError, match="its logprobs are no list of tokens"):
        read_log(tmp_path / "log.json")


def test_several_logs_can_be_asked_for_convergence(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", one="trained.eval", two="reasoning.json", base="base.eval")
    assert analyse("convergence", [run], baseline="base").table[0]["pair"] == "one & two"


def test_a_named_model_scores_the_thoughts_of_a_log(tmp_path: Path, tiny_folder: Path) -> None:
    run = imported(tmp_path / "run", trained="trained.eval", base="base.eval")
    with pytest.raises(UserError, match="set reference=MODEL"):
        analyse("information-gain", [run])
    found = analyse("information-gain", [run], reference=str(tiny_folder))
    said = {(row["arm"], row["scorer"]): row for row in found.table}
    assert said["trained", "itself"]["says"] == "does not apply: a log holds no weights"
    assert said["trained", str(tiny_folder)]["items"] == 3


def test_answers_of_a_log_can_be_judged_again(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", trained="trained.eval", base="base.eval")
    again = regrade(run, tmp_path / "again")
    assert again.bottom_line == run.bottom_line
    assert "the log" not in again.metrics["arms"]["trained"]["found_by"]
    scores = [[[t.score for t in some] for some in one.traces["trained"].values()] for one in (run, again)]
    assert scores[0] == scores[1]
    without = import_logs({"a": LOGS / "trl_one.parquet"}, tmp_path / "without")
    with pytest.raises(UserError, match=r"2 items of .* have no gold answer"):
        regrade(without, tmp_path / "no")


# Refusals: one line, and nothing written


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The log in JSON with something changed."""
    log = json.loads((LOGS / "reasoning.json").read_text(encoding="utf-8"))
    change(log)
    (tmp_path / "log.json").write_text(json.dumps(log), encoding="utf-8")
    return tmp_path / "log.json"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda log: log.update(version=1), "log version 1, expected 2"),
        (lambda log: log.update(status="error"), "status 'error', so its samples are a part"),
        (lambda log: log.update(samples=None), "holds no samples; run the evaluation with --log-samples"),
        (lambda log: log.update(samples=[]), "holds no answers"),
        (lambda log: log["samples"][1].update(id="q1"), "holds answer 0 to item 'q1' twice"),
        (lambda log: log["samples"][0].update(epoch="x"), "sample 1: it has no id and epoch"),
        (lambda log: log["samples"][0]["scores"].update(other={"value": 1}), "scores by match, other; choose one"),
        (lambda log: log["samples"][0]["scores"]["match"].update(value="good"), "'good' is no number"),
        (lambda log: log["samples"][0]["scores"]["match"].update(value={"a": 1}), r"several values \(a\)"),
        (lambda log: log["samples"][0]["scores"]["match"].update(value=3), "a score of 3, and a verdict lies in"),
        (lambda log: log["samples"][0].update(input=None), "sample 1: it has no input"),
        (lambda log: [sample.update(scores=None) for sample in log["samples"]], "no answer in .* has a score"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_whole(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        import_logs({"a": changed(tmp_path, change)}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sample_without_a_score_counts_as_wrong_and_is_counted(tmp_path: Path) -> None:
    def fail(log: dict[str, Any]) -> None:
        log["samples"][0].update(scores={}, error={"message": "timed out", "traceback": "", "traceback_ansi": ""})

    run = import_logs({"a": changed(tmp_path, fail)}, tmp_path / "run")
    assert run.metrics["arms"]["a"]["unjudged"] == {"log": 1}
    assert run.metrics["arms"]["a"]["scores"]["q1"] == 0
    assert "counted as incorrect: a 1 without one in the log" in render(run)


def test_an_invalidated_sample_has_no_verdict(tmp_path: Path) -> None:
    def invalidate(log: dict[str, Any]) -> None:
        log["samples"][0].update(invalidation={"author": "a", "reason": "wrong target"})

    before, after = (read_log(path).records for path in (LOGS / "reasoning.json", changed(tmp_path, invalidate)))
    assert before[0].score is not None and after[0].score is None and after[1:] == before[1:]


def test_a_score_that_is_a_list_under_its_key_is_refused(tmp_path: Path) -> None:
    log = changed(tmp_path, lambda log: log["samples"][0]["scores"]["match"].update(value={"a": [1]}))
    with pytest.raises(UserError, match="sample 1: the score is a list, expected a number"):
        read_log(log, wanted=Wanted("match/a"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"input": "a", "output": "b"}', "line 1: it has no 'score'; it has input, output"),
        ('{"input": "a", "output": "b", "score": "x"}', "line 1: score is 'x', expected a number"),
        ('{"input": 3, "output": "b", "score": 1}', "line 1: input is a int, expected text"),
        ('{"input": "a", "output": 3, "score": 1}', "answer 1: text is int '3', expected text"),
        ('{"input": "a", "output": "b", "score": 1}\n[1]', "line 2: a list, expected an object"),
        ('{"input": "a", "output": "b", "score": 1}\n{"input"', "line 2: not JSON"),
        ('{"input": "a", "output": "b", "score": 1, "step": 1}\n{"input": "a", "output": "b", "score": 1, "step": 2}',
         "line 2: of another step"),
    ],
)  # fmt: skip
def test_a_garbled_dump_is_refused_by_its_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "1.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_log(tmp_path / "1.jsonl", "verl")


def test_a_text_that_no_file_can_hold_is_mended(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text(
        '{"input": "a", "output": "\\ud800 \\ud83d\\ude00", "score": 1}\n', encoding="utf-8"
    )
    run = import_logs({"a": tmp_path / "1.jsonl"}, tmp_path / "run")
    assert next(iter(run.traces["a"].values()))[0].text == "\ufffd \U0001f600"


def test_what_a_log_says_is_harmless_on_a_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"

    def poison(log: dict[str, Any]) -> None:
        log["eval"].update(model=evil, task=evil)
        sample = log["samples"][0]
        sample.update(id=evil, input=evil, target=evil, metadata={"level": evil})
        sample["scores"]["match"].update(answer=evil)
        sample["output"]["choices"][0]["message"].update(content=evil)
        sample["output"]["choices"][0].update(stop_reason=evil)

    run = import_logs({"a": changed(tmp_path, poison), "b": changed(tmp_path, poison)}, tmp_path / "run", page=render)
    assert evil not in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert run.metrics["model"]["name"] == evil
    for name in ("[red]", "a@budget", " ", "a\x1b"):
        with pytest.raises(UserError, match="cannot name an arm"):
            import_logs({name: LOGS / "base.eval"}, tmp_path / "no")


def test_a_reward_of_which_none_is_one_is_no_verdict(tmp_path: Path) -> None:
    files = {"a": LOGS / "trl_two.parquet"}
    for wrong in (math.nan, math.inf):
        with pytest.raises(UserError, match="give a finite number"):
            import_logs(files, tmp_path / "no", verdicts=Verdicts(score="length", right=wrong))
    assert not (tmp_path / "no").exists()
    with pytest.raises(UserError, match=r"a score of 0\.6, and none of 1, which is right; give --right"):
        import_logs(files, tmp_path / "no", verdicts=Verdicts(score="length"))
    run = import_logs(files, tmp_path / "run", verdicts=Verdicts(score="length", right=0.5))
    assert run.metrics["samples"]["avg_at_k"]["mean"] == 1
    assert import_logs(files, tmp_path / "run", verdicts=Verdicts(score="length", right=0.5)).metrics == run.metrics
    with pytest.raises(UserError, match="holds a run with other verdicts"):
        import_logs(files, tmp_path / "run", verdicts=Verdicts(score="length", right=0.1))


def test_logs_of_other_questions_are_refused_unless_the_shared_ones_are_wanted(tmp_path: Path) -> None:
    fewer = changed(tmp_path, lambda log: log.update(samples=log["samples"][:2]))
    files = {"a": LOGS / "base.eval", "b": fewer}
    with pytest.raises(UserError, match=r"1 stand in one alone, 2 in all logs\); give --shared"):
        import_logs(files, tmp_path / "run")
    assert len(import_logs(files, tmp_path / "run", shared=True).items) == 2
    other = changed(tmp_path, lambda log: log["samples"][0].update(target="8"))
    with pytest.raises(UserError, match="item 'q1' is another question, or has another gold answer"):
        import_logs({"a": LOGS / "base.eval", "b": other}, tmp_path / "other")


def test_a_zip_is_read_within_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (LOGS / "base.eval").read_bytes()
    half = tmp_path / "half.eval"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no zip that can be read"):
        read_log(half)
    with zipfile.ZipFile(LOGS / "base.eval") as log:
        info = log.getinfo("header.json")
    bad = bytearray(whole)
    bad[info.header_offset + 30 + len(info.filename) + 20] ^= 0xFF
    (tmp_path / "bad.eval").write_bytes(bad)
    with pytest.raises(UserError, match=r"header\.json: cannot be read"):
        read_log(tmp_path / "bad.eval")
    monkeypatch.setattr("elicit.evaluation.run.bounded.MEMBER", 100)
    with pytest.raises(UserError, match=r"header\.json: more than"):
        read_log(LOGS / "base.eval")


def test_a_member_that_claims_to_be_small_is_not_unpacked(tmp_path: Path) -> None:
    """A bomb of Zstandard: 4 MiB of blanks in a few hundred bytes, with a size of 10 in its entry."""
    import pyarrow as pa

    packed = pa.Codec("zstd").compress(b" " * (4 << 20), asbytes=True)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w") as log:
        log.writestr("header.json", packed)
    data = bytearray(path.read_bytes())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    for where, shift in ((local, 0), (central, 2)):
        data[where + 8 + shift : where + 10 + shift] = struct.pack("<H", 93)
        data[where + 22 + shift : where + 26 + shift] = struct.pack("<L", 10)
    path.write_bytes(data)
    with Zipped(path) as log, pytest.raises(UserError, match=r"header\.json: (more than|cannot be read)"):
        log.json("header.json")


def test_a_file_of_no_format_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(UserError, match=r"of no known format .lm-eval: .*inspect: .*trl: .*verl: "):
        read_log(tmp_path / "x.txt")
    with pytest.raises(UserError, match="unknown format 'inspct'; did you mean inspect"):
        read_log(LOGS / "base.eval", "inspct")


# Out, and back


@pytest.fixture
def run(tmp_path: Path, tiny: Model) -> Run:
    """A run with a greedy arm and a sampled one."""
    from elicit.decoding.decoders import Greedy, Sampling
    from elicit.elicited import Elicited

    items = questions(6)
    sampled = Elicited(tiny, "self-consistency", decoder=Sampling(samples=3), select="vote")
    greedy = Elicited(tiny, "direct", decoder=Greedy())
    arms = {
        "self-consistency": (
            sampled,
            {item.id: samples(item, [n % 2 == 0, n % 3 == 0, True]) for n, item in enumerate(items)},
        ),
        "direct": (greedy, {item.id: samples(item, [n > 2]) for n, item in enumerate(items)}),
    }
    return planted(tmp_path / "ours", items, arms)


def test_an_exported_run_reads_back_with_the_same_scores(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    files = write_inspect(run, tmp_path / "out")
    assert [path.name for path in files] == ["self-consistency.eval", "direct.eval"]
    back = import_logs({path.stem: path for path in files}, tmp_path / "back")
    for name, arm in run.metrics["arms"].items():
        assert back.metrics["arms"][name]["scores"] == arm["scores"]
        assert back.metrics["arms"][name]["tokens_per_item"] == arm["tokens_per_item"]
        for item, some in run.traces[name].items():
            assert [(t.text, t.answer, t.score) for t in some] == [
                (t.text, t.answer, t.score) for t in back.traces[name][item]
            ]
    assert [item.kind for item in back.items] == [run.items.task.kind_of(item) for item in run.items]
    first = files[0].read_bytes()
    assert write_inspect(run, tmp_path / "out")[0].read_bytes() == first


def test_every_eval_ever_gets_an_aggregate_and_a_line_a_question(run: Run, tmp_path: Path) -> None:
    files = write_every_eval_ever(run, tmp_path)
    for path, (name, arm) in zip(files, run.metrics["arms"].items(), strict=True):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines = path.with_name(f"{path.stem}_samples.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert found["schema_version"] == "0.3.0"
        assert found["evaluation_results"][0]["score_details"]["score"] == arm["accuracy"]
        assert found["detailed_evaluation_results"]["total_rows"] == len(rows) == 6
        assert {row["sample_id"]: row["evaluation"]["score"] for row in rows} == arm["scores"]
        assert {row["evaluation_id"] for row in rows} == {found["evaluation_id"]}
        assert len(rows[0]["output"]["raw"]) == (3 if name == "self-consistency" else 1)


def test_an_accuracy_that_is_not_stated_is_not_exported(run: Run, tmp_path: Path) -> None:
    run.metrics["arms"]["direct"] |= {"unjudged": {"time": 6}, "branches_per_item": 1}
    with pytest.raises(UserError, match="cannot be exported as accuracies"):
        write_every_eval_ever(run, tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_verdict_that_was_lost_is_none_when_it_is_read_back(run: Run, tmp_path: Path) -> None:
    some = next(iter(run.traces["direct"].values()))
    some[0] = replace(some[0], unjudged="time", score=0.0)
    run.metrics["arms"]["direct"] |= {"unjudged": {"time": 1}, "branches_per_item": 1}  # of 6 answers
    (tmp_path / "out").mkdir()
    files = write_inspect(run, tmp_path / "out")
    for path, stated in zip(files, (True, False), strict=True):
        with zipfile.ZipFile(path) as log:
            results = json.loads(log.read("header.json"))["results"]
        said = results["metadata"]["elicit"]
        assert ("accuracy" in results["scores"][0]["metrics"]) is ("accuracy" in said) is stated
    back = import_logs({path.stem: path for path in files}, tmp_path / "back")
    assert back.metrics["arms"]["direct"]["unjudged"] == {"log": 1}
    assert back.metrics["arms"]["self-consistency"]["unjudged"] == {}


# The shell


def test_the_shell_imports_and_exports(tmp_path: Path) -> None:
    code, out, err = shell(
        "import",
        f"trained={LOGS / 'trained.eval'}",
        f"base={LOGS / 'base.eval'}",
        "--out",
        str(tmp_path / "run"),
        "--json",
    )
    assert (code, err) == (0, "")
    assert set(json.loads(out)["arms"]) == {"trained", "base"}
    assert (tmp_path / "run/report.html").is_file()
    code, _, err = shell("export", str(tmp_path / "run"), "--to", "inspect", "--out", str(tmp_path / "logs"))
    assert (code, err) == (0, "")
    assert read_log(tmp_path / "logs/base.eval").model == "elicit/base:mockllm/model"
    code, _, err = shell("export", str(tmp_path / "run"), "--to", "inspct", "--out", str(tmp_path / "logs"))
    assert code == 2 and "unknown form 'inspct'; did you mean inspect?" in err
    code, _, err = shell("import", str(LOGS / "verl/0.jsonl"), "--out", str(tmp_path / "no"))
    assert code == 2 and "give --right" in err and not (tmp_path / "no").exists()
    shutil.copy(LOGS / "base.eval", tmp_path / "a.eval")
    code, _, err = shell("import", str(LOGS / "base.eval"), f"base={tmp_path / 'a.eval'}")
    assert code == 2 and "two logs are named 'base'" in err
