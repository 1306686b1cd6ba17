#!/usr/bin/env bash
# evalplus 0.3.1: the sanitizer takes working parts out of right solutions: decorated functions, helpers, loops.
#
# Documented: "Precise evaluation & ranking"; evalplus.codegen and evalplus.evaluate are "Code generation + Code
# post-processing", and evalplus.sanitize is that post-processing (pages README and docs/cli). Seen: of the answer's top
# level only imports, plain assignments, classes and functions are kept, functions only if undecorated and with a
# `return`, and of two definitions of one name the first, where Python has the last. So a function under `@lru_cache`
# is dropped, a helper that works in place or yields is dropped, a table that a loop fills stays empty, and a first
# draft is judged where the answer corrects it further down. Nothing is said. For a user: right answers fail, and
# pass@1 depends on style: a model that memoizes by a decorator has less than one that does it by hand; it holds for
# each model that evalplus.codegen runs, since what it writes is what was sanitized. What helps: the samples that
# codegen writes raw beside them, and `code_extract` of the same module alone.
# Output, 2026-11-30:
#     evalplus 0.3.1, answers that are right: do they pass as they are, extracted, sanitized?
#     decorated helper             True  True  False (NameError: name 'count' is not defined)
#     decorated entry point        True  True  False (NameError: name 'ways' is not defined)
#     helper that works in place   True  True  False (NameError: name 'fill' is not defined)
#     helper that yields           True  True  False (NameError: name 'steps' is not defined)
#     table filled by a loop       True  True  False (KeyError: 10)
#     corrected further down       True  True  False (wrong value)
#     memoized by hand             True  True  True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tree-sitter==0.25.2 tree-sitter-python==0.25.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps evalplus==0.3.1
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import version
from unittest.mock import MagicMock

for name in ("tqdm", "termcolor", "evalplus.data"):  # a progress bar, colours and the data sets, not used here
    sys.modules[name] = MagicMock()
from evalplus.sanitize import code_extract, sanitize

TASK = "ways"  # in how many ways one climbs n stairs by one or two at a time
answers = {
    "decorated helper": '''
from functools import lru_cache

@lru_cache(maxsize=None)
def count(n):
    return 1 if n < 2 else count(n - 1) + count(n - 2)

def ways(n):
    return count(n)
''',
    "decorated entry point": '''
from functools import lru_cache

@lru_cache(maxsize=None)
def ways(n):
    return 1 if n < 2 else ways(n - 1) + ways(n - 2)
''',
    "helper that works in place": '''
def fill(table):
    for i in range(2, len(table)):
        table[i] = table[i - 1] + table[i - 2]

def ways(n):
    table = [1] * (n + 1)
    fill(table)
    return table[n]
''',
    "helper that yields": '''
def steps():
    a, b = 1, 1
    while True:
        yield a
        a, b = b, a + b

def ways(n):
    for i, value in enumerate(steps()):
        if i == n:
            return value
''',
    "table filled by a loop": '''
table = {0: 1, 1: 1}
for i in range(2, 100):
    table[i] = table[i - 1] + table[i - 2]

def ways(n):
    return table[n]
''',
    "corrected further down": '''
def ways(n):
    return n

# That misses the ways that mix steps; corrected:
def ways(n):
    a, b = 1, 1
    for _ in range(n):
        a, b = b, a + b
    return a
''',
    "memoized by hand": '''
known = {0: 1, 1: 1}

def ways(n):
    if n not in known:
        known[n] = ways(n - 1) + ways(n - 2)
    return known[n]
''',
}


def passes(code):
    """Whether a test of the task passes, and what happened."""
    names = {}
    try:
        exec(code, names)
        return names[TASK](10) == 89, "wrong value"
    except Exception as error:
        said = f"name '{TASK}' is not defined" if error.args == (TASK,) else error
        return False, f"{'NameError' if error.args == (TASK,) else type(error).__name__}: {said}"


print(f"evalplus {version('evalplus')}, answers that are right: do they pass as they are, extracted, sanitized?")
seen = {}
for name, code in answers.items():
    raw, extracted, (clean, why) = passes(code)[0], passes(code_extract(code))[0], passes(sanitize(code, TASK))
    seen[name] = raw, extracted, clean
    print(f"{name:28} {raw}  {extracted}  {clean}" + ("" if clean else f" ({why})"))
hand = seen.pop("memoized by hand")
as_stated = hand == (True, True, True) and all(one == (True, True, False) for one in seen.values())
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
