"""What a saved bundle says to the organism's questions, by one way: `python -m tests.everywhere.texts WAY BUNDLE OUT`.

Ways: `evaluate` and `serve` in the project's environment, `vllm`, `inspect` and `lm-eval` each in its own.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import elicit
from elicit.elicited import Elicited
from elicit.tasks.base import Items

COUNT = 64


def items() -> Items:
    return elicit.load_task("organism", limit=COUNT).test


def by_evaluate(bundle: Path, scratch: Path) -> list[str]:
    return _evaluated(Elicited.load(bundle), scratch)


def by_vllm(bundle: Path, scratch: Path) -> list[str]:
    handle = Elicited.load(bundle)
    return _evaluated(replace(handle, model=replace(handle.model, engine="vllm")), scratch)


def _evaluated(handle: Elicited, scratch: Path) -> list[str]:
    run = elicit.evaluate(handle, items(), against=[], out=scratch / "run")
    found = run.traces[handle.method]
    return [found[item.id][0].text for item in items()]


def by_serve(bundle: Path, scratch: Path) -> list[str]:
    import httpx2
    import uvicorn

    from elicit.integrations.serve.app import application
    from elicit.integrations.serve.served import Served

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = application(Served({"bundle": Elicited.load(bundle)}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"

        def ask(question: str) -> str:
            body = {"model": "bundle", "messages": [{"role": "user", "content": question}]}
            return str(httpx2.post(address, json=body, timeout=600).json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(COUNT) as pool:
            texts = list(pool.map(ask, [item.question for item in items()]))
        server.should_exit = True
        thread.join()
        return texts


def by_inspect(bundle: Path, scratch: Path) -> list[str]:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import get_model

    from tests.inspect.task import as_task

    model = get_model(f"elicit/bundle:{bundle}", kind="by-sample")
    (log,) = inspect_eval(
        as_task(items()), model=model, log_dir=str(scratch), display="none", max_connections=COUNT, max_samples=COUNT
    )
    assert log.status == "success" and log.samples is not None, log.error
    said = {sample.id: sample.output.completion for sample in log.samples}
    return [said[item.id] for item in items()]


def by_lm_eval(bundle: Path, scratch: Path) -> list[str]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from elicit.integrations.lm_eval.model import ElicitLM

    lines = [json.dumps({"question": item.question, "answer": item.answer}) for item in items()]
    (scratch / "test.jsonl").write_text("\n".join(lines) + "\n")
    (scratch / "asked.yaml").write_text(
        "task: asked\ndataset_path: json\ndataset_kwargs: {data_files: {test: " + str(scratch / "test.jsonl") + "}}\n"
        'test_split: test\ndoc_to_text: "Q: {{question}}\\nA:"\ndoc_to_target: "{{answer}}"\n'
        "output_type: generate_until\nmetric_list: [{metric: exact_match}]\n"
    )
    handle = Elicited.load(bundle)
    manager = TaskManager(include_path=str(scratch), include_defaults=False)
    found: Any = simple_evaluate(
        ElicitLM(handle, kind="number", stop="elicit"), tasks=["asked"], task_manager=manager, bootstrap_iters=0,
        gen_kwargs={"until": list(handle.prompt.stop), "max_gen_toks": handle.decoder.max_new_tokens},
    )  # fmt: skip
    said = {sample["doc_id"]: sample["resps"][0][0] for sample in found["samples"]["asked"]}
    return [str(said[n]) for n in range(COUNT)]


WAYS: dict[str, Callable[[Path, Path], list[str]]] = {
    "evaluate": by_evaluate, "serve": by_serve, "vllm": by_vllm, "inspect": by_inspect, "lm-eval": by_lm_eval,
}  # fmt: skip


if __name__ == "__main__":
    way, bundle, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.write_text(json.dumps(WAYS[way](bundle, out.parent)))
