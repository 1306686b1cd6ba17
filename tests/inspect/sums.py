"""Tasks of Inspect as people write them; some ask for what an item cannot give."""

from random import Random

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage
from inspect_ai.scorer import answer, choice, match, model_graded_fact
from inspect_ai.solver import generate, multiple_choice, prompt_template, self_critique, system_message, use_tools
from inspect_ai.tool import bash

SUMS = [
    Sample(id=f"s{n}", input=f"What is {n} + {2 * n}?", target=str(3 * n), metadata={"level": n % 3})
    for n in range(1, 41)
]
TEMPLATE = "Work it out.\n\n{prompt}\n\nEnd with ANSWER: and the number."


def spoken(text: str) -> ModelOutput:
    """What a mock model says; its tokens are counted, as Inspect would fetch a tokenizer to count them."""
    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


@task
def sums(count: int = 40):
    solver = [prompt_template(TEMPLATE), generate()]
    return Task(dataset=MemoryDataset(SUMS[:count]), solver=solver, scorer=match(numeric=True))


@task
def letters():
    samples = [Sample(input=f"Which is {n}?", choices=[str(n + 1), str(n), "none"], target="B") for n in range(40)]
    return Task(dataset=MemoryDataset(samples), solver=multiple_choice(), scorer=choice())


@task
def drawn(count: int = 1):
    samples = [Sample(input=f"Which is {n}?", choices=[str(n + k) for k in range(4)], target="A") for n in range(count)]
    return Task(dataset=MemoryDataset(samples), solver=multiple_choice(shuffle=Random(3)), scorer=choice())


@task
def lines():
    return Task(dataset=MemoryDataset(SUMS), solver=[system_message("You add."), generate()], scorer=answer("line"))


@task
def judged():
    return Task(dataset=MemoryDataset(SUMS), solver=generate(), scorer=model_graded_fact())


@task
def tools():
    return Task(dataset=MemoryDataset(SUMS), solver=[use_tools(bash()), generate()], scorer=match())


@task
def critic():
    return Task(dataset=MemoryDataset(SUMS), solver=[generate(), self_critique()], scorer=match())


@task
def boxed():
    return Task(dataset=MemoryDataset(SUMS), solver=generate(), scorer=match(), sandbox="docker")


@task
def twice():
    return Task(dataset=MemoryDataset(SUMS), solver=[generate(), generate()], scorer=match())
