"""What is counted or measured: the unit of a value, in one name."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def unit_of(plain: str) -> tuple[str, str]:
    """What has a unit, and the unit in one name; ("x", "") for what has none."""
    based = re.fullmatch(r"\(?([\dA-F]+)\)?_\{?(\d+|\x02[a-z]+\x03)\}?", plain)
    if based:
        return based[1], f"base {based[2]}"
    money = re.match(r"(-?)\s?(\\?\$|[\u20ac\u00a3\u00a5])\s?(-?)(?=[\d.])", plain)
    if money:
        return money[1] + money[3] + plain[money.end() :], money[2].lstrip("\\")
    found = re.search(r"(?<=[\d)}!.])\s*(?P<tail>\x02.*|(?:\\?\$|[\u20ac\u00a3\u00a5])$|\s[A-Za-z].*)$", plain, re.S)
    found = found or re.search(r"(?<=[a-z])\s*(?P<tail>\x02[^\x02\x03]+\x03(?:\s?\^\s?\{?\d\}?)?)$", plain, re.S)
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
    return plain[: found.start()].strip(), "/".join(names) + (f"^{power}" if power and names else "")


def _is_unit(words: Sequence[str], tail: str) -> bool:
    """Whether words after a number are a unit or what is counted; but for a few, letters are variables."""
    if any(word in ("and", "or", "not", "am", "pm", "is", "x", "to") or word.isdigit() for word in words):
        return False
    known = any(word in _UNIT and len(word) > 1 for word in words) or words[0] in ("m", "g", "s", "h", "l")
    return "\x02" in tail or known or all(len(word) > 2 for word in words)
