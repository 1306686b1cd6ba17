#!/usr/bin/env bash
# math-verify 0.9.0: variables c, g, h, l, m, s and t behind a number are units and are dropped, so that 4 is right where 4t is asked for.
#
# Documented: of its normalisation, "units: Remove units and their variations" (latex2sympy2_extended's NormalizationConfig), which math-verify
# switches on and its readme does not name.
# Seen: one list holds words such as "monkey", and single letters. So `4t` is read as 4, `3 + 2m` as 5, `x + 3g` as x + 3, `9c + 5c` as 9c + 5;
# `4k`, `4n`, `4x` are read as written. No warning is given. For a user: where the gold answer is an expression in such a letter, its
# coefficient alone is rewarded, and the whole expression written in another order is not. Handing
# `LatexExtractionConfig(normalization_config=NormalizationConfig(..., units=False))` keeps the letters, and then 5 cm is no longer 5.
# Output, 2026-11-30:
#     math-verify 0.9.0
#     gold 4t, read as 4: 4 is right, t + 3t is wrong
#     gold 5c, read as 5: 5 is right, c + 4c is wrong
#     gold 3 + 2m, read as 2 + 3: 5 is right, m + m + 3 is wrong
#     gold 2\pi h, read as 2*pi: 2\pi is right, h + h(2\pi - 1) is wrong
#     gold 4k, read as 4*k: 4 is wrong, k + 3k is right
#     without units: gold 4t, read as 4*t: 4 is wrong, t + 3t is right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'math-verify[antlr4_13_2]==0.9.0' latex2sympy2_extended==1.11.0
"$folder/venv/bin/python" - <<'PYTHON'
from dataclasses import replace
from importlib.metadata import version

from math_verify import LatexExtractionConfig, parse, verify

print("math-verify", version("math-verify"))
plain = LatexExtractionConfig()
kept = replace(plain, normalization_config=replace(plain.normalization_config, units=False))


def shown(gold, coefficient, whole, config):
    read, *others = (parse(f"${one}$", [config]) for one in (gold, coefficient, whole))
    verdicts = ["right" if verify(read, other) else "wrong" for other in others]
    told = "" if config is plain else "without units: "
    print(f"{told}gold {gold}, read as {read[0]}: {coefficient} is {verdicts[0]}, {whole} is {verdicts[1]}")
    return verdicts


seen = [
    shown("4t", "4", "t + 3t", plain),
    shown("5c", "5", "c + 4c", plain),
    shown("3 + 2m", "5", "m + m + 3", plain),
    shown(r"2\pi h", r"2\pi", r"h + h(2\pi - 1)", plain),
    shown("4k", "4", "k + 3k", plain),
    shown("4t", "4", "t + 3t", kept),
]
raise SystemExit(0 if seen == [["right", "wrong"]] * 4 + [["wrong", "right"]] * 2 else 1)
PYTHON
