"""The page of an SAE's features: its contexts and numbers are those of a slow reading; it opens alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.models import Model
from probes.errors import UserError
from probes.sae import SAE
from probes.sae import activity as activity_module
from probes.sae.activity import EDGES, nearest, read_activity, values_in
from tests.report.conftest import WAIT
from tests.support.saes import save_random_sae
from tests.support.shell import shell
from tests.support.tiny import VOCAB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_sae(tmp_path_factory.mktemp("sae") / "random")


def some_texts(count: int = 30) -> list[list[int]]:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (count,), generator=g).tolist()
    return [torch.randint(3, VOCAB, (n,), generator=g).tolist() for n in lengths]


def slowly(model: Model, sae: SAE, texts: list[list[int]], limit: float) -> dict[int, torch.Tensor]:
    """Every text alone, through the model's own hidden states; 0 where nothing is read."""
    out = {}
    for n, text in enumerate(texts):
        with torch.no_grad():
            states = model.lm(torch.tensor([text]), output_hidden_states=True).hidden_states
        h = states[sae.site.layer + 1][0]
        read = (torch.arange(len(text)) > 0) & (h.norm(dim=-1) <= limit)
        out[n] = sae.encode(h) * read[:, None]
    return out


@pytest.mark.parametrize("factor", [10.0, 1.1])
def test_contexts_and_values_are_those_of_a_slow_reading(
    tiny: Model, folder: Path, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_module, "CHUNK_TOKENS", 60)
    monkeypatch.setattr(activity_module, "massive_limit", lambda norms: factor * float(norms.median()))
    sae, texts = SAE.load(folder), some_texts()
    found = read_activity(tiny.lm, sae, texts, [3, 17, 40], contexts=4)
    z = slowly(tiny, sae, texts, found.limit)
    every = torch.cat(list(z.values()))[:, found.features]
    torch.testing.assert_close(found.fired, (every > 0).sum(0))
    torch.testing.assert_close(found.total, every.sum(0), rtol=1e-4, atol=1e-4)
    counts = torch.stack([torch.histogram(column[column > 0], EDGES).hist for column in every.T]).long()
    assert torch.equal(found.counts[:, 1:-1].long(), counts)
    values = values_in(tiny.lm, sae, found, texts)
    for place, index in enumerate(found.features.tolist()):
        peaks = sorted(((float(z[n][:, index].max()), n) for n in z), reverse=True)[:4]
        assert found.value[place].tolist() == pytest.approx([value for value, _ in peaks], abs=1e-4)
        assert [n for value, n in peaks if value > 0] == found.text[place][found.value[place] > 0].tolist()
        for text, position in zip(found.text[place].tolist(), found.position[place].tolist(), strict=True):
            if (index, text) in values:
                torch.testing.assert_close(values[index, text], z[text][:, index], rtol=1e-4, atol=1e-4)
                assert int(values[index, text].argmax()) == position
    assert found.positions + found.left_out == sum(map(len, texts))
    assert (found.left_out > len(texts)) == (factor < 2)


def test_all_features_read_at_once_are_those_read_alone(tiny: Model, folder: Path) -> None:
    sae, texts = SAE.load(folder), some_texts()
    every, some = read_activity(tiny.lm, sae, texts), read_activity(tiny.lm, sae, texts, [9, 2])
    again = every.of(torch.tensor([9, 2]))
    for name, value in vars(some).items():
        torch.testing.assert_close(getattr(again, name), value)
    cosines = torch.nn.functional.cosine_similarity(sae.W_dec[9:10], sae.W_dec)
    ((best, cosine), *_) = nearest(sae, [9])[0]
    cosines[9] = 0
    assert best == int(cosines.abs().argmax()) and cosine == pytest.approx(float(cosines[best]), abs=1e-5)


def test_what_cannot_be_read_is_refused(tiny: Model, folder: Path) -> None:
    sae = SAE.load(folder)
    for texts, features, said in (([[5]], [1], "a text of two tokens"), ([[5, 6]], [64], "the SAE has 64")):
        with pytest.raises(UserError, match=said):
            read_activity(tiny.lm, sae, texts, features)


def arguments(folder: Path, tiny_folder: Path, *more: str) -> list[str]:
    given = ["--model", str(tiny_folder), "--sources", "words.txt", "--tokens", "2000", "--context", "32"]
    return ["sae", "dashboard", str(folder), *given, "--device", "cpu", "--dtype", "float32", *more]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("".join(f"<script>alert({n})</script> & {n * 7} words\n" for n in range(200)))


@pytest.mark.usefixtures("words")
def test_the_command_writes_one_page_that_asks_nothing_of_a_network(
    folder: Path, tiny_folder: Path, chromium: Any
) -> None:
    code, out, err = shell(*arguments(folder, tiny_folder, "--features", "top:5", "--json"))
    assert code == 0, err
    found = json.loads(out)
    file = Path(found["page"])
    assert file == Path("runs/features-random.html") and len(found["features"]) == 5
    head = file.read_text().split("<script")[0]
    assert "https://" not in head and all(f"#feature-{row['feature']}'" in head for row in found["features"])
    page = chromium.new_page()
    page.set_default_timeout(WAIT)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda asked: wrong.append(asked.message))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(f"file://{file.resolve()}")
    page.locator("figure.plot").first.scroll_into_view_if_needed()
    page.locator("figure.plot .main-svg").first.wait_for(state="attached")
    assert page.locator("p.context").count() > 5 and "alert" in (page.locator("main").text_content() or "")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not wrong
    page.close()
    code, out, _ = shell(*arguments(folder, tiny_folder, "--features", "3,17"))
    assert code == 0 and "2 features over" in out


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(("more", "said"), [
    (["--features", "64"], "feature 64 was given; the SAE has 64"),
    (["--features", "top:0"], "give distinct numbers like 3,17, or top:50"),
    (["--features", "3,3"], "give distinct numbers"),
    (["--contexts", "0"], "give at least 1"),
    (["--sources", "none.txt"], "none.txt"),
    (["--out", "words.txt"], "was not written by elicit"),
])  # fmt: skip
def test_mistakes_are_one_line(folder: Path, tiny_folder: Path, more: list[str], said: str) -> None:
    code, out, err = shell(*arguments(folder, tiny_folder, *more))
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not Path("runs").exists()


def test_a_file_with_fewer_tokens_is_read_whole(folder: Path, tiny_folder: Path, words: None) -> None:
    command = arguments(folder, tiny_folder, "--tokens", "1000000")
    code, out, _ = shell(*command, "--json")
    tokens = json.loads(out)["tokens"]
    assert code == 0 and 2000 < tokens < 1_000_000
    code, out, _ = shell(*command)
    assert code == 0 and f"these sources have {tokens} tokens of the 1000000 that were asked for" in out
