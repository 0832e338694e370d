"""What reward programs may name, and bounds of what they may write. Everything is an allow-list."""

from __future__ import annotations

import builtins

MAX_DEPTH = 170
"""Levels of the syntax tree; an ``elif`` is one too, and each part of ``a and b and c``. Monty takes 185."""

MAX_FUNCTIONS_DEEP = 8
"""Functions within one another: reading them takes Monty twice as long for each."""

MAX_PARTS = 100
"""Arguments of a call, names to unpack to, ...: Monty takes 254, of loops in a comprehension 127."""

MAX_INTEGER = 10**18
MAX_TEXT = 2000
MAX_NAME = 60
MAX_WIDTH = 100
MAX_COMPONENT_NAME = 64
PARAMETERS = ("obs", "prev_obs", "action", "info")
GROUPS = ("obs", "prev_obs", "info")
KINDS = ("sparse", "dense")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


TYPES = words("bool dict float frozenset int list set str tuple")
FUNCTIONS = TYPES | words(
    "abs all any divmod enumerate filter isinstance len map max min next ord pow range repr reversed round sorted sum "
    "zip"
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
    "isdigit isdecimal isnumeric isalpha isalnum isascii isspace islower istitle isupper center ljust rjust zfill"
)

MATH = words(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 "
    "fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log "
    "log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp"
)

KEYWORDS = words("abs_tol base default key maxsplit ndigits number rel_tol reverse sep start steps strict")
SORTING = words("max min sorted")
"""Functions that take one to sort by, ``key``."""

# What functions and methods give back, as far as it matters for what could be changed.

PLAIN = words("abs all any bool divmod float int isinstance len ord pow range repr round str")
"""Functions that give numbers, texts and what holds nothing else."""

BUILDERS = words("dict frozenset list set sorted tuple")
"""Functions that put the elements of what they are given into something new."""

ITERATORS = words("enumerate filter map reversed zip")
"""Functions whose values are used up by reading them."""

PLAIN_METHODS = words(
    "lower upper title capitalize casefold swapcase strip lstrip rstrip removeprefix removesuffix startswith endswith "
    "split rsplit splitlines partition rpartition join replace find rfind rindex index count "
    "isdigit isdecimal isnumeric isalpha isalnum isascii isspace islower istitle isupper center ljust rjust zfill "
    "issubset issuperset isdisjoint"
)
"""Methods that give numbers, texts, and lists and tuples of them."""

LISTING_METHODS = words("split rsplit splitlines")
"""Those of them that give a list."""

SET_METHODS = words("union intersection difference symmetric_difference")
"""Methods that put the elements into something new."""

VIEWS = words("keys values items copy")
"""Methods that show all elements, or all fields of a group."""

READING_METHODS = PLAIN_METHODS | SET_METHODS | VIEWS | {"get"}
"""Methods that change nothing; all others do."""

# What nobody may bind anew at the module level: also what is not available, so that no name means it by accident.
RESERVED = frozenset(dir(builtins)) | FUNCTIONS | EXCEPTIONS | {"math", "COMPONENTS"}
FIXED = frozenset(name for name in RESERVED if not name.islower()) | EXCEPTIONS | {"math"}
"""What functions may not bind anew either; elsewhere Python never means the builtin of that name."""
HELP = {
    "print": "programs write nothing; return components instead",
    "open": "programs read no files",
    "input": "programs read nothing but their arguments",
    "getattr": "read fields as obs['hp']",
    "hasattr": "write 'hp' in obs",
    "next": "write next((x for x in values if ...), None), or use a for loop",
    "iter": "use a for loop",
    "format": "use an f-string",
    "type": "use isinstance",
    "random": "programs give equal values for equal inputs",
    "np": "use math, min, max, sum",
    "numpy": "use math, min, max, sum",
    "hash": "hashes differ between processes",
    "self": "programs are functions, not classes",
    "chr": "write the character",
    "Dict": "types of typing stand in annotations only",
    "List": "types of typing stand in annotations only",
    "Any": "types of typing stand in annotations only",
    "Optional": "types of typing stand in annotations only",
    "typing": "types of typing stand in annotations only",
    "cast": "write float(x)",
}

METHOD_HELP = {
    "format": "use an f-string such as f'{x:.2f}'",
    "format_map": "use an f-string such as f'{x:.2f}'",
    "is_integer": "write x == int(x)",
}
"""What to write in place of methods."""


def is_component_name(name: str) -> bool:
    """Whether components may be called so: letters, digits and _ of ASCII, no digit first, no two _ side by side."""
    return len(name) <= MAX_COMPONENT_NAME and name.isascii() and name.isidentifier() and "__" not in name
