"""What a model's generation_config.json says is obeyed by no backend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from elicit.models import load_model
from probes.errors import UserError
from steering.backends import Rows
from steering.backends.huggingface import HuggingFace
from steering.backends.nnsight import NNsight, own_settings
from tests.steering.test_backends import NEW, PROMPTS
from tests.support.refused import refuse

pytestmark = pytest.mark.usefixtures("one_thread")


def with_own(folder: Path, fields: dict[str, Any], to: Path) -> str:
    """A copy of a model's folder whose generation_config.json says this."""
    shutil.copytree(folder, to)
    (to / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 0, **fields}))
    return str(to)


def test_a_model_s_own_settings_touch_no_token(tiny_folder: Path, tmp_path: Path) -> None:
    """Of the reference, and of nnsight on a model that it loads itself."""
    named = with_own(tiny_folder, {"suppress_tokens": list(range(40, 54)), "max_time": 1e-9}, tmp_path / "own")
    plain, own = (load_model(str(one), dtype="float32", device="cpu") for one in (tiny_folder, named))
    asked = Rows(PROMPTS, [()])
    wanted = [one.tokens for one in HuggingFace(plain.lm).generate(asked, max_new_tokens=NEW)]
    before = own.lm.generation_config
    reference = HuggingFace(own.lm)
    assert [one.tokens for one in reference.generate(asked, max_new_tokens=NEW)] == wanted
    assert own.lm.generation_config is before
    assert NNsight(named).generate(asked, max_new_tokens=NEW).tokens.tolist() == wanted


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"bad_words_ids": [[5]]}, r"sets bad_words_ids = \[\[5\]\], which a server's generate would obey"),
        ({"min_new_tokens": 1}, "sets min_new_tokens = 1, "),
        ({"max_time": 3.0}, "sets max_time = 3.0, "),
        ({"forced_eos_token_id": 0}, "sets forced_eos_token_id = 0, "),
        ({"num_beams": 4}, "sets num_beams = 4, "),
        ({"use_cache": False}, "sets use_cache = False, "),
    ],
)
def test_own_settings_of_a_model_elsewhere_are_refused(
    tiny_folder: Path, tmp_path: Path, fields: dict[str, Any], line: str
) -> None:
    engine = NNsight(with_own(tiny_folder, fields, tmp_path / "own"), remote=True)
    refuse(line, lambda: engine.generate(Rows(PROMPTS, [()]), max_new_tokens=NEW))


def test_own_settings_that_change_nothing_travel(tiny_folder: Path, tmp_path: Path) -> None:
    """What greedy decoding does not read, what is given in its place, and values that leave all as it is."""
    fields = {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "suppress_tokens": [5], "num_beams": 1}
    fields |= {"cache_implementation": "hybrid", "min_length": 0, "guidance_scale": 1.0, "no_repeat_ngram_size": 3}
    assert own_settings(with_own(tiny_folder, {**fields, "do_sample": True}, tmp_path / "own")) == {}
    for damaged in (b'{"max_time": ', b"\xff\xfe"):
        (tmp_path / "own" / "generation_config.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"generation_config.json of .* is no JSON"):
            own_settings(str(tmp_path / "own"))
    (tmp_path / "own" / "generation_config.json").unlink()
    assert own_settings(str(tmp_path / "own")) == {}
