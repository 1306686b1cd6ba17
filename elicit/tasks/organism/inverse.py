"""The backward question of an organism's problem: the answer is given, and something that the question held is asked.

It is a problem of the organisms' own families, so that a model that solves those can solve it:

| family | held back | asked instead |
| --- | --- | --- |
| sums | the first number | all steps taken back from the answer: of 5 + 7 - 3 = 9, What is 9 + 3 - 7? |
| modular | the first number | the same, by what completes each term to the modulus |
| countdown | the target | what the answer makes |
| graph | the cost of the way's last road | what the whole way costs without its other roads |
"""

from __future__ import annotations

from elicit.tasks.base import Item, content_id, split_of
from elicit.tasks.organism.problems import FAMILIES, MODULAR_ASKED, SUM_ASKED
from elicit.tasks.organism.solver import Numbers, SumFacts, facts_of, solve

BACK = {"+": "-", "-": "+"}


def inverse(item: Item) -> Item | None:
    """The backward question as an item of the same split, with what was held back as its answer.

    Returns:
        None where each wording of it belongs to another split: nothing that is evaluated is learned.

    Raises:
        UserError: an item that is none of the organisms'.
    """
    facts, modulus = facts_of(item), None
    steps = solve(item)
    result = steps[-1].content
    if isinstance(facts, SumFacts):
        (_, held), modulus = facts.terms[0], facts.modulus
        later = facts.terms[:0:-1]
        if modulus is None:
            written = " ".join([result, *(f"{BACK[sign]} {n}" for sign, n in later)])
        else:
            written = " + ".join([result, *(str(modulus - n) for _, n in later)])
    elif isinstance(facts, Numbers):
        held, written = facts.target, result
    else:
        costs = next(step.content for step in steps if step.behaviour == "subgoal").split(" + ")
        held, written = int(costs[-1]), " - ".join([result, *costs[:-1]])
    family, wordings = ("sums", SUM_ASKED) if modulus is None else ("modular", MODULAR_ASKED)
    asked = [wording.format(x=written, m=modulus) for wording in wordings]
    question = next((one for one in asked if split_of(one) == item.split), None)
    if question is None:
        return None
    name = f"{family}-{content_id(question)}"
    return Item(name, question, str(held), item.split, {"family": family}, FAMILIES[family].kind)
