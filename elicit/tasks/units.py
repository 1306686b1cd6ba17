"""What is counted or measured: the unit of a value, in one name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from elicit.tasks.numerals import worded_value

_UNITS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram",
    "kg": "kilogram", "lb": "pound lbs", "oz": "ounce", "s": "second sec", "min": "minute", "h": "hour hr", "day": "",
    "week": "", "month": "", "year": "yr", "ml": "milliliter millilitre", "l": "liter litre", "gal": "gallon",
    "$": "dollar usd buck", "cent": "", "€": "euro eur", "£": "gbp", "¥": "yen", "degree": "deg", "radian": "rad",
    "%": "percent pct percentage", "mph": "", "kmh": "kph", "pint": "", "quart": "", "cup": "", "acre": "",
    "hectare": "", "celsius": "", "fahrenheit": "",
}  # fmt: skip
_UNIT = {name: unit for unit, names in _UNITS.items() for word in (unit, *names.split()) for name in (word, f"{word}s")}
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cubed": "3", "cu": "3"}

# The units that one measure may be told in, from the largest to the smallest: of time, length, weight, volume, money.
_TOLD = (
    ("year yr", "month", "week", "day", "hour hr h", "minute min m", "second sec s"),
    ("kilometer kilometre km", "mile", "meter metre m", "yard yd", "foot feet ft", "inch inches in",
     "centimeter centimetre cm", "millimeter millimetre mm"),
    ("ton", "stone", "kilogram kg", "pound lb", "ounce oz", "gram g", "milligram mg"),
    ("gallon", "liter litre l", "quart", "pint", "cup", "ounce oz", "milliliter millilitre ml"),
    ("dollar", "euro", "pound", "cent", "pence penny"),
    ("degree", "minute min", "second sec"),
)  # fmt: skip
_PLACES = [{name: n for n, names in enumerate(kind) for name in names.split()} for kind in _TOLD]
_GAP = r"(?:[\s~{}]|\\[ ,;]|\\text\s?\{){0,8}"
_AMOUNT = re.compile(rf"\d[\d,]{{0,99}}(?:\.\d{{1,99}})?{_GAP}(?P<unit>[A-Za-z]{{1,11}})(?![A-Za-z])(?:\s?\}})?")
_JOINT = re.compile(rf"{_GAP}(?:(?:,|and(?![A-Za-z])){_GAP}){{0,2}}")
_BASED = re.compile(
    r"\(?(?P<digits>[\dA-F]+)\)?(?:_\{?\s?\x02?(?:base\s?\x03?\s?)?(?P<name>\d+|[a-z]+)\x03?\s?\}?"
    r"|[\s\x02(]+(?:in )?base[\s\x03-]+(?P<said>\d+|[a-z]+)[\s\x03)]*)"
)
# A time of day, whose half is no meters.
_CLOCK = re.compile(r"\x02?\s?(?P<time>\d{1,2}(?::\d\d)?)[\s\x02]*(?P<half>[ap])\.?\s?m[.\s\x03]*", re.I)
_EACH = re.compile(r"\s(?:each|every|per|an?)\b")


def measure(text: str, start: int, end: int) -> int | None:
    """Where a measure ends that begins here and is told in several units: 2 hours and 30 minutes, 5 ft 2 in."""
    last = [-1] * len(_PLACES)  # of each kind the place of the unit before; no place is behind the last one
    told, at, stop, joint = 0, start, start, ""
    while found := _AMOUNT.match(text, at, end):
        unit = found["unit"].lower()
        places = [kind.get(unit, kind.get(unit.removesuffix("s"), -1)) for kind in _PLACES]
        last = [here if here > before else len(_UNITS) for here, before in zip(places, last, strict=True)]
        if min(last) == len(_UNITS) or ("," in joint and _EACH.match(text, found.end(), end)):
            break
        told, stop = told + 1, found.end()
        at = _JOINT.match(text, stop, end).end()  # type: ignore[union-attr]
        joint = text[stop:at]
    return stop if told > 1 else None


def unit_of(plain: str) -> tuple[str, str]:
    """What has a unit, and the unit in one name; ("x", "") for what has none."""
    based = _BASED.fullmatch(plain)
    if based:
        name = based["name"] or based["said"]
        base = name if name.isdecimal() else worded_value(name)
        return (based["digits"], f"base {base}") if base is not None else (plain, "")
    clock = _CLOCK.fullmatch(plain)
    if clock:
        return clock["time"], f"{clock['half'].lower()}m"
    money = re.match(r"(-?)\s?(\\?\$|[\u20ac\u00a3\u00a5])\s?(-?)(?=[\d.])", plain)
    if money:
        return money[1] + money[3] + plain[money.end() :], money[2].lstrip("\\")
    found = re.search(r"(?<=[\d)}!.])\s*(?P<tail>\x02.*|(?:\\?\$|[\u20ac\u00a3\u00a5])$|\s[A-Za-z].*)$", plain, re.S)
    found = found or re.search(r"(?<=[a-z])\s*(?P<tail>\x02[^\x02\x03]+\x03(?:\s?\^\s?\{?\d\}?)?)$", plain, re.S)
    found = found or re.fullmatch(r"-?\d[\d,]*(?:\.\d+)?(?P<tail>[ghlms])", plain)
    found = found or re.search(r"(?<=\d)(?P<tail>(?:mm|cm|km|kg|mg|ml|ft|mph|lbs?|hrs?|min)(?:\^\{?\d\}?)?)$", plain)
    if not found or "\\" in (tail := re.sub(r"[\x02\x03]", " ", found["tail"]).replace("\\$", "$")):
        return plain, ""
    words = re.findall(r"[A-Za-z]+|[%$\u20ac\u00a3\u00a5]|\^\s?\{?\s?(?:\d)\s?\}?|\d+", tail.lower())
    if not words or re.search(r"[=<>+*&,]", tail) or not _is_unit(words, found["tail"]):
        return plain, ""
    names, power = [], ""
    for word in words:
        if word in _POWERS:
            power = _POWERS[word]
        elif word[0] == "^":
            power = re.sub(r"\D", "", word)
        elif word in _UNIT:
            names.append(_UNIT[word])
    return plain[: found.start("tail")].strip(), "/".join(names) + (f"^{power}" if power and names else "")


def _is_unit(words: Sequence[str], tail: str) -> bool:
    """Whether words after a number are a unit or what is counted; but for a few, letters are variables."""
    if any(word in ("and", "or", "not", "am", "pm", "is", "x", "to") or word.isdigit() for word in words):
        return False
    known = any(word in _UNIT and len(word) > 1 for word in words) or words[0] in ("m", "g", "s", "h", "l")
    return "\x02" in tail or known or all(len(word) > 2 for word in words)
