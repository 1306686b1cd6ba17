#!/usr/bin/env bash
# sympy 1.14.0: parse_latex reads 2\sqrt3 as 2, "1, 2" as 1, 12_{8} as 12, "3 4" as 34 and 3\frac{1}{2} as 3/2.
#
# Documented: parse_latex "Converts the input LaTeX string s to a SymPy Expr"; strict: "If True, raise an exception if
# the string cannot be parsed as valid LaTeX. If False, try to recover gracefully from common mistakes". Seen: without
# `strict`, which is the default, what stands behind the longest beginning that is an expression is dropped: an
# abbreviated root, further values, the base, the thousands behind {,}. With or without it spaces between digits are
# dropped, so that a mixed number is another fraction; a mixed number in LaTeX is a product; 1/2x is 1/(2x) and
# \frac{1}{2}x is x/2; towers of powers are read from the left; x(y+1) is a function called x; units and the letters of
# \text are factors. Nothing is said. For a user: graders that take the difference of two such readings (Minerva's of
# MATH, and those made after it) call answers equal that begin alike. What helps: strict=True, and a normalization of
# roots, mixed numbers and lists before it; math-verify's or latex2sympy2_extended's parser.
# Output, 2026-11-30:
#     sympy 1.14.0: text, what it means, what is read, what is read with strict=True
#     2\sqrt{3}       2*sqrt(3)  2*sqrt(3)      2*sqrt(3)
#     2\sqrt3         2*sqrt(3)  2              refused
#     1, 2            two values 1              refused
#     \frac{1}{2}, 5  two values 1/2            refused
#     1{,}000         1000       1              refused
#     12_{8}          10         12             refused
#     3\frac{1}{2}    7/2        3/2            3/2
#     1 2/3           5/3        4              4
#     3 4             two values 34             34
#     \frac{1}{2}x    x/2        x/2            x/2
#     1/2x            x/2        1/(2*x)        1/(2*x)
#     2^3^2           512        64             64
#     x(y+1)          x*(y + 1)  x(y + 1)       x(y + 1)
#     5 \text{ cm}    5          5*c*m*text     5*c*m*text
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sympy==1.14.0 antlr4-python3-runtime==4.11.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sympy
from sympy import Function, Integer, Rational, S, sqrt, symbols
from sympy.parsing.latex import LaTeXParsingError, parse_latex

x, y = symbols("x y")
rows = [(r"2\sqrt{3}", 2 * sqrt(3)), (r"2\sqrt3", 2 * sqrt(3)), (r"1, 2", None), (r"\frac{1}{2}, 5", None),
        (r"1{,}000", Integer(1000)), (r"12_{8}", Integer(10)), (r"3\frac{1}{2}", Rational(7, 2)),
        (r"1 2/3", Rational(5, 3)), (r"3 4", None), (r"\frac{1}{2}x", x / 2), (r"1/2x", x / 2),
        (r"2^3^2", S(512)), (r"x(y+1)", x * (y + 1)), (r"5 \text{ cm}", S(5))]
print(f"sympy {sympy.__version__}: text, what it means, what is read, what is read with strict=True")
seen = {}
for text, right in rows:
    loose = parse_latex(text)
    try:
        strict = parse_latex(text, strict=True)
    except LaTeXParsingError:
        strict = "refused"
    seen[text] = loose.doit(), strict if strict == "refused" else strict.doit()
    print(f"{text:15} {right if right is not None else 'two values'!s:10} {seen[text][0]!s:14} {seen[text][1]}")
named = Function("x")(y + 1)
units = seen[r"5 \text{ cm}"][0].free_symbols  # \text, c and m
dropped = [seen[text] for text in (r"2\sqrt3", "1, 2", r"\frac{1}{2}, 5", r"1{,}000", "12_{8}")]
as_stated = seen[r"2\sqrt{3}"][0] == 2 * sqrt(3) and len(units) == 3 and seen["x(y+1)"][1] == named
as_stated = as_stated and dropped == [(value, "refused") for value in (2, 1, Rational(1, 2), 1, 12)]
as_stated = as_stated and [seen[text][1] for text in (r"3\frac{1}{2}", "1 2/3", "3 4", "2^3^2", "1/2x")] == [
    Rational(3, 2), 4, 34, 64, 1 / (2 * x)]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
