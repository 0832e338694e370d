"""What reward programs may name, and bounds of what they may write. Everything is an allow-list."""

from __future__ import annotations

import builtins

MAX_DEPTH = 100
"""Levels of the syntax tree; an ``elif`` is one too."""

MAX_INTEGER = 10**18
MAX_TEXT = 2000
MAX_NAME = 60
MAX_WIDTH = 100
MAX_COMPONENT_NAME = 40
PARAMETERS = ("obs", "prev_obs", "action", "info")
GROUPS = ("obs", "prev_obs", "info")
KINDS = ("sparse", "dense")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


TYPES = words("bool dict float frozenset int list set str tuple")
FUNCTIONS = TYPES | words(
    "abs all any divmod enumerate filter isinstance len map max min pow range reversed round sorted sum zip"
)

EXCEPTIONS = words(
    "ArithmeticError AssertionError AttributeError Exception FloatingPointError IndexError KeyError LookupError "
    "NameError NotImplementedError OverflowError RecursionError RuntimeError TypeError ValueError "
    "ZeroDivisionError"
)

METHODS = words(
    "get items keys values pop popitem setdefault update copy clear fromkeys "
    "append extend insert remove reverse sort index count "
    "add discard union intersection difference symmetric_difference issubset issuperset isdisjoint "
    "lower upper title capitalize casefold swapcase strip lstrip rstrip removeprefix removesuffix startswith endswith "
    "split rsplit splitlines partition rpartition join replace find rfind rindex "
    "isdigit isdecimal isnumeric isalpha isalnum isspace islower isupper"
)

MATH = words(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 "
    "fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log "
    "log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp"
)

KEYWORDS = words("abs_tol base default key maxsplit ndigits number rel_tol reverse sep start steps strict")
READING = words("get items keys values copy index count union intersection difference issubset issuperset isdisjoint")
"""Methods that leave a constant as it is."""

VIEWS = words("keys values items copy")
"""Methods that hand on a whole group of fields."""

READERS = words("all any dict enumerate filter frozenset len list map max min reversed set sorted sum tuple zip")
"""Functions that, of one argument, take the elements and not the thing."""

# What nobody may bind anew: also what is not available, so that a name never means it by accident.
RESERVED = frozenset(dir(builtins)) | FUNCTIONS | EXCEPTIONS | {"math", "COMPONENTS"}
HELP = {
    "print": "programs write nothing; return components instead",
    "open": "programs read no files",
    "input": "programs read nothing but their arguments",
    "getattr": "read fields as obs['hp']",
    "hasattr": "write 'hp' in obs",
    "next": "use a for loop, or max(..., default=0)",
    "iter": "use a for loop",
    "format": "use an f-string",
    "type": "use isinstance",
    "random": "programs give equal values for equal inputs",
    "np": "use math, min, max, sum",
    "numpy": "use math, min, max, sum",
    "hash": "hashes differ between processes",
    "self": "programs are functions, not classes",
    "Dict": "write dict",
    "Any": "leave the annotation out",
    "Optional": "write float | None",
}
