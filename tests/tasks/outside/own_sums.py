"""A task of one's own, as a user would write it."""

import random


def sums(terms=2, seed=0):
    rows = [
        {"id": f"s{n}", "question": f"{n} × {terms} + {seed} = ?", "answer": str(terms * n + seed), "level": n % 2}
        for n in range(1, 41)
    ]
    return rows, lambda response, row: response.rstrip(".").endswith(row["answer"])


def plain():
    return [{"question": f"{n} + 1 = ?", "answer": n + 1, "split": "test"} for n in range(8)]


def strict():
    return [{"question": "?", "answer": "7"}], lambda response, row: 2 if "7" in response else 0


def for_ever():
    def grade(response, row):
        while True:
            pass

    return [{"question": "?", "answer": "7"}], grade


def garbled():
    return [{"question": "?"}]


def nothing():
    pass


def by_split():
    return {"test": plain()}


def not_a_number():
    return [{"question": "?", "answer": 7.5}, {"question": "!", "answer": float("nan")}]


def half_a_pair():
    return [{"question": "\udcff?", "answer": "7"}]


def raises():
    raise ValueError("one\ntwo \x1b[31mred")


def asks_a_person():
    return [{"question": input("what? "), "answer": "7"}]


def drawn():
    numbers = [random.randrange(10**9) for _ in range(4)]
    rows = [{"id": f"d{n}", "question": f"{number} = ?", "answer": str(number)} for n, number in enumerate(numbers)]
    return rows, lambda response, row: row["answer"] in response
