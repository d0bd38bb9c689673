"""Units of measurement, so that a unit may be left out, and 90 cents are not 90 dollars."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_KINDS: Mapping[str, Mapping[str, str]] = {
    "money": {"1": "dollar usd $ us$", "1/100": "cent ¢"},
    "euro": {"1": "euro eur €"},
    "length": {
        "1": "m meter metre",
        "1/100": "cm centimeter centimetre",
        "1/1000": "mm millimeter millimetre",
        "1000": "km kilometer kilometre",
        "127/5000": "in inch inche",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard",
        "201168/125": "mi mile",
    },
    "time": {"1": "s sec second", "60": "min minute", "3600": "h hr hour", "86400": "day", "604800": "week"},
    "months": {"1": "month", "12": "year yr"},
    "mass": {"1": "g gram gramme", "1000": "kg kilogram kilo", "1/1000": "mg milligram"},
    "weight": {"1": "oz ounce", "16": "lb lbs"},
    "litres": {"1": "l liter litre", "1/1000": "ml milliliter millilitre"},
    "gallons": {"1": "cup", "2": "pint pt", "4": "quart qt", "16": "gallon gal"},
    "angle": {"1": "° deg degree"},
    "radians": {"1": "rad radian"},
    "celsius": {"1": "c celsius"},
    "fahrenheit": {"1": "f fahrenheit"},
    "speed": {"1": "km/h kmh kph kmph", "201168/125000": "mph mi/h"},
    "watts": {"1": "w watt", "1000": "kw kilowatt"},
    "volts": {"1": "v volt"},
    "newtons": {"1": "n newton"},
    "joules": {"1": "j joule"},
    "kelvin": {"1": "k kelvin"},
}
_KNOWN = {
    name: (kind, Fraction(factor))
    for kind, of in _KINDS.items()
    for factor, names in of.items()
    for name in names.split()
}
_OTHER_WORDS = (
    "and or plus minus times over not but mod divided squared cubed since because than if when where is are was to "
    "sin cos tan cot sec csc log exp sqrt frac pi infinity the thousand million billion trillion hundred"
)
_NOT_UNITS = frozenset(_OTHER_WORDS.split())
_AREA = re.compile(r"(?:square|sq\.?)\s|\s?squared$")
_VOLUME = re.compile(r"(?:cubic|cu\.?)\s|\s?cubed$")


@dataclass(frozen=True)
class Unit:
    """A unit: of which kind, how much of the kind's own, to which power, per what. Kind "" is one not known here."""

    kind: str
    factor: Fraction = Fraction(1)
    power: int = 1
    per: str = ""


def unit(written: str, power: int = 1) -> Unit | None:
    """The unit that is written (without \\text); None where the words are something else."""
    name, _, per = written.strip(" .-").replace(" per ", "/").partition("/")
    if whole := _known(written.strip(" .")):
        return Unit(*whole, power)
    if per.strip() and (unit(per) is None or (not name.strip() and len(per.strip()) == 1)):
        return None  # 1/x is a formula
    powers = 2 if _AREA.search(name.lower()) else 3 if _VOLUME.search(name.lower()) else power
    name = _VOLUME.sub("", _AREA.sub("", name.strip().lower() if len(name.strip()) > 1 else name.strip()))
    if name.startswith("°") and len(name) > 1:
        name = name[1:]
    name = re.sub(r"^degrees? (?=celsius|fahrenheit|c$|f$)", "", name.strip(" ."))
    if found := _known(name):
        return Unit(*found, powers, per.strip().lower())
    words = re.split(r"[\s-]+", name) if name else []
    if not all(re.fullmatch(r"[A-Za-z']{2,}\.?", w) and w.rstrip(".") not in _NOT_UNITS for w in words):
        return None
    longest = max((len(w.rstrip(".")) for w in words), default=0)
    is_unit = longest >= 3 or name in ("am", "pm", "st", "nd", "rd", "th") or bool(per.strip() and not name)
    return Unit("", per=per.strip().lower()) if is_unit else None


def _known(name: str) -> tuple[str, Fraction] | None:
    """Kind and factor of a unit's name, in the singular or the plural; one letter counts as it is written."""
    if len(name) == 1 and name not in "mghsLlWVNJKCF°$€¢":
        return None
    low = name.lower().replace(". ", ".").strip()
    return _KNOWN.get(low) or _KNOWN.get(low.removesuffix("s")) or _KNOWN.get(low.removesuffix("es"))


def scale(one: Unit | None, other: Unit | None) -> Fraction | None:
    """How many of the other unit one of the first is; None where they measure different things.

    A unit that is left out, or one that is not known here, is taken for the other.
    """
    if one is None or other is None or not one.kind or not other.kind:
        return Fraction(1)
    if (one.kind, one.power) != (other.kind, other.power):
        return None
    rate = scale(unit(one.per), unit(other.per)) if one.per and other.per else Fraction(1)
    return None if rate is None else (one.factor / other.factor) ** one.power / rate
