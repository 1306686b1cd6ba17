"""What a response without a box comes to, and what its last equation, derivation or rounding is worth."""

from __future__ import annotations

import pytest

from elicit.tasks.responses import Response, judge

RIGHT = [
    ("24", "So $c = 12.$  Therefore, the distance between the foci is $2c = 24.$"),
    ("80", "Hence, the perimeter of one of the five rectangles is $2x + 2y = 80$."),
    ("169", "One square must have an area of $s^2=13^2=169$ square inches."),
    ("108^\\circ", "Therefore, the largest angle has measure $6x = 108^\\circ.$"),
    ("13", "Thus $a = 3$ and $b = 7$. Hence, $2a + b = 13$."),
    ("2300", "Five pounds of feathers and five of gold cost $5(f+g)=2300$ dollars."),
    ("2x + 3y = 5", "The equation of the line is $2x + 3y = 5$."),
    ("-\\frac{7}{9}", "so $\\sin 2 \\theta = -\\frac{7}{9}.$"),
    ("6", "Therefore, $\\lfloor t \\rfloor = 6.$"),
    ("150", "Thus $P = 150 = R$, and we are done."),
    # lines of a derivation
    ("x^3+27", "We find:\n\\begin{align*} &(x^2-3x+9)(x+3) \\\\ &\\qquad= x^3 -3x^2 +9x +3x^2 -9x +27 \\\\ "
     "&\\qquad= x^3+27. \\end{align*}"),
    ("6", "\\begin{align*}\n&f(g(5))\\\\\n&=f(10)&\\text{half}\\\\\n&=6&\\text{added 1}.\n\\end{align*}"),
    ("50", "we find: \\begin{align*}\n3x-2x&=42+8\\\\\n\\Rightarrow\\qquad x&=50\n\\end{align*}"),
    # letters that are no units
    ("4t", "\\boxed{3t+4-6t+7t - 4 = 4t}"),
    ("9c+6", "\\boxed{c+3(c+2)+5c}"),
    ("4m", "\\boxed{m + 3m}"),
    ("10", "\\boxed{10m}"),
    # rounded as it is asked for
    ("54000", "The region has area $250000-196300\\approx54000$ square meters."),
    ("0.33", "\\boxed{\\frac{1}{3} \\approx 0.33}"),
    ("\\frac{1}{3}", "\\boxed{\\frac{1}{3} \\approx 0.33}"),
    ("37.5", "\\boxed{\\frac{75}{2} \\approx 38}"),
    # what stands behind
    ("11", "The vertex is $(3, 2)$, and $f(0) = 11$.\n\n[asy]\nxaxis(0,6); label(\"$x$\", (4, 0), SE);\n[/asy]"),
    ("24", "and so $AD=\\sqrt{576}=24$, since $AD>0$."),
    ("-7", "So it is $\\boxed{-7}$. The final answer is negative, because one of three numbers is."),
    ("128", "Thus, the answer is the sum of the even numbers from $6$ to $24$ excluding $22$, which is $128$."),
    ("20 $cm^{2}", "Therefore, the answer is 20 $cm^{2}$."),
    ("f(n) = n, g(n) = 1", "Therefore, the answer is $f(n)=n$, $g(n)=1$."),
    ("2+\\frac{4\\sqrt{3}}{3}", "So the perimeter $P = 1 +\n\\frac{4\\sqrt{3}}{3} + 1$ is $2+\\frac{4\\sqrt{3}}{3}$."),
]  # fmt: skip
WRONG = [
    ("4", "\\boxed{4t}"),
    ("4t", "\\boxed{4}"),
    ("5", "\\boxed{3+2m}"),
    ("5", "So we have $2x = 5$."),
    ("1", "\\boxed{x^2 + y^2 = 1}"),
    ("38", "\\boxed{\\frac{75}{2} \\approx 37.5}"),
    ("3", "So it is \\boxed{3}. The final answer is 4."),
    ("0", "[asy]\ndot((0,0));\n[/asy]"),
]


@pytest.mark.parametrize(("gold", "response"), RIGHT)
def test_what_is_right(gold: str, response: str) -> None:
    (judged,) = judge([Response(gold, response, "math")])
    assert judged.right, judged


@pytest.mark.parametrize(("gold", "response"), WRONG)
def test_what_is_wrong(gold: str, response: str) -> None:
    (judged,) = judge([Response(gold, response, "math")])
    assert not judged.right, judged
