"""Numbers as they are shown: whole ones in full, others to four significant digits, rounded as JavaScript does it."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

DIGITS = 4
# From 0.0001 up and below a million a number is written out.
_SMALLEST, _LARGEST = -4, 6
_WHOLE = 1e9


def digits(value: float) -> str:
    """`0.3125`, `3.906e-5`, `10496`; the page's own `digits` gives the same text."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    exact = Decimal(value)
    rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted() - DIGITS + 1), rounding=ROUND_HALF_UP)
    power = rounded.adjusted()
    if _SMALLEST <= power < _LARGEST:
        text = f"{rounded:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa = f"{rounded.scaleb(-power):f}"
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{power}"
