"""An argparse parser of a configuration: its fields become flags, its values defaults, its docstrings help.

pydantic-settings makes the parser; argparse reads what was typed. What cannot be read is said in one sentence.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo

from launch.errors import UserError, nearest

AFTER = "--"
"""Alias of a field that takes the words after ``--``, which are no flags of ours."""

SHIELD = " "
"""Before values that argparse would take for an option of one letter: -turns."""
_WORDS = {"true": True, "false": False}
_WHOLE = re.compile(r"\d+(\.\d+)?[eE]\+?\d{1,2}")


# -- what there is to set ----------------------------------------------------------------------------


def fields_of(model: BaseModel) -> dict[str, tuple[str, FieldInfo]]:
    """``{name on the command line, with underscores: (attribute, field)}``, fields of an instance's own included."""
    declared = {info.alias or name: (name, info) for name, info in type(model).model_fields.items()}
    extra = {name: (name, FieldInfo(annotation=type(v))) for name, v in (model.__pydantic_extra__ or {}).items()}
    return declared | extra


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, ``Annotated`` taken off; the annotation itself where it is none."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for a in get_args(annotation) for inner in _alternatives(a))
    return (annotation,)


def _variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """``{value of the kind field: class}`` of a union of configuration classes."""
    found = {}
    for member in _alternatives(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel) and "kind" in member.model_fields:
            found |= {str(name): member for name in get_args(member.model_fields["kind"].annotation)}
    return found


def unions(model: BaseModel, path: str = "") -> Iterator[tuple[str, dict[str, type[BaseModel]]]]:
    """Every field that may hold one of several configuration classes: its dotted path, and its ``_variants``."""
    for name, (attribute, info) in fields_of(model).items():
        if len(variants := _variants(info.annotation)) > 1:
            yield path + name, variants
        if isinstance(current := getattr(model, attribute, None), BaseModel):
            yield from unions(current, f"{path}{name}.")


def is_sequence(annotation: Any) -> bool:
    """Whether a field takes several values."""
    return any((get_origin(a) or a) in (tuple, list, set, frozenset) for a in _alternatives(annotation))


# -- what was typed ----------------------------------------------------------------------------------


def cut(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What comes before ``--``, and after it; None where there is none."""
    words = list(argv)
    return (words, None) if AFTER not in words else (words[: (at := words.index(AFTER))], words[at + 1 :])


def is_flag(token: str) -> bool:
    """Whether a word names a flag."""
    return token.startswith("--")


def _typed(path: str) -> str:
    return "--" + path.replace("_", "-")


def _shielded(word: str) -> str:
    return SHIELD + word if word.startswith("-") and len(word) > 1 and word != "-h" else word


def normalised(argv: Sequence[str]) -> list[str]:
    """``--a_b=c`` as ``--a-b c``; values that begin with a minus are shielded."""
    tokens: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if is_flag(word):
            tokens += [_typed(name.removeprefix("--")), *([_shielded(value)] if equals else [])]
        else:
            tokens.append(_shielded(word))
    return tokens


def groups(tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words after it; first the words before all flags, under an empty name."""
    starts = [i for i, token in enumerate(tokens) if is_flag(token)]
    yield "", list(tokens[: starts[0] if starts else None])
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start], list(tokens[start + 1 : end])


def positive(name: str) -> str:
    """``--a.no-b``, and ``--no-a.b``, as ``--a.b``."""
    head, dot, last = name.removeprefix("--").removeprefix("no-").rpartition(".")
    return f"--{head}{dot}{last.removeprefix('no-')}"


# -- the parser --------------------------------------------------------------------------------------


class UnknownFlagError(UserError):
    """There is no such flag.

    Args:
        name: as it was typed, with hyphens.
        text: the sentence.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in which no flag is broken at its hyphens."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An argparse parser of configurations; what it finds wrong is said in one sentence."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=command,
            description=inspect.cleandoc(description or ""),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self.names = ["--help"]
        self._switches: set[str] = set()
        self._places: list[str] = []
        self._models: list[BaseModel] = []

    def add(self, model: BaseModel, hidden: Sequence[str] = ()) -> None:
        """Make flags and positionals of the fields of a configuration."""
        from pydantic_settings import (  # an import of 0.1 s that some commands do without
            BaseSettings,
            CliSettingsSource,
        )

        self._models.append(model)
        CliSettingsSource(
            _mirror(model, hidden=(*hidden, AFTER), base=BaseSettings),
            root_parser=self,
            cli_parse_none_str="None",
            cli_avoid_json=True,
            cli_use_class_docs_for_groups=True,
            cli_implicit_flags=True,
            cli_kebab_case=True,
            add_argument_method=self._add_field,
        )
        self.usage = " ".join((self.prog, *self._places, "[--flag value ...]"))

    def _add_field(self, context: Any, *names: str, **options: Any) -> None:
        if options.get("action") == "help" or options.get("const") == "{}":
            return  # argparse has its own help, and no configuration is given as JSON
        names = tuple("--" + name.lstrip("-") if name.startswith("-") else name for name in names)  # -x of a field x
        metavar = options.get("metavar") or ""
        words = set(re.findall(r"\w+", metavar))
        if options.get("nargs") == "*" and is_flag(names[0]):
            options["action"] = "extend"
        if options.get("action") is argparse.BooleanOptionalAction:
            self._switches.add(names[0])
        elif "None" in words or "int" in words:
            options["type"] = lambda word: _read(word, is_whole="int" in words, may_be_none="None" in words)
        if "metavar" in options:
            of_each = re.sub(r"tuple\[(.+?),\.\.\.\]", r"\1", metavar)
            options["metavar"] = re.sub(r"\b(int|float|str)\b", lambda m: m.group().upper(), of_each)
        if is_flag(names[0]):
            self.names.append(names[0])
        else:
            several = " ..." if options.get("nargs") in ("*", "+") else ""
            self._places.append(f"{options['metavar']}{several}")
        context.add_argument(*names, **options)

    def read(self, tokens: Sequence[str]) -> dict[str, Any]:
        """``{dotted path: what was typed}``; a list for a sequence.

        Raises:
            UserError: one sentence.
        """
        words = list(self._with_switches(tokens))
        found, left = self.parse_known_intermixed_args(words)
        if left:
            self._refuse(left, words)
        return {path: _unshielded(value) for path, value in vars(found).items() if _is_given(value)}

    def _with_switches(self, tokens: Sequence[str]) -> Iterator[str]:
        """``--x false``, ``--a.no-x`` and what else a switch can be, as argparse reads it: ``--no-a.x``."""
        for name, words in groups(tokens):
            flag = positive(name)
            if flag not in self._switches:
                yield from [name, *words] if name else words
                continue
            is_on = name == flag
            if words and words[0].lower() in _WORDS:
                is_on, words = is_on is _WORDS[words[0].lower()], words[1:]
            yield flag if is_on else flag.replace("--", "--no-", 1)
            yield from words

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into ours.

        Raises:
            UserError: always.
        """
        if found := re.match(r"argument (\S+): expected", message):
            raise UserError(f"{found.group(1)} needs a value")
        if found := re.match(r"the following arguments are required: ([\w-]+)", message):
            missing = found.group(1).lower().replace("-", "_")
            what = next((fields_of(m)[missing][1].description for m in self._models if missing in fields_of(m)), None)
            what = (what or missing).splitlines()[0].partition(";")[0].rstrip(".")
            raise UserError(f"{self.prog.removeprefix('yendor ')} needs {what[:1].lower()}{what[1:]}")
        raise UserError(message)

    def _refuse(self, left: Sequence[str], words: Sequence[str]) -> NoReturn:
        """Say why something is left that no flag and no positional takes.

        Raises:
            UserError: always.
        """
        if flags := [word for word in left if is_flag(word)]:
            raise UnknownFlagError(flags[0], self._unknown(flags[0]))
        stray = left[0].removeprefix(SHIELD)
        for name, values in groups(words):
            shown = [value.removeprefix(SHIELD) for value in values]
            if left[0] not in values or positive(name) not in self.names:
                continue
            if positive(name) in self._switches:
                raise UserError(f"{name} is a switch: give it true, false or nothing, not '{' '.join(shown)}'")
            raise UserError(f"{name} takes 1 value, but was given {len(values)}: {' '.join(shown)}")
        raise UserError(f"unexpected argument '{stray}'; settings are given as --name value")

    def _unknown(self, name: str) -> str:
        for model in self._models:
            for path, variants in unions(model):
                for kind, variant in variants.items():
                    if name in {_typed(f"{path}.{field}") for field in variant.model_fields}:
                        return f"{name} belongs to {_typed(path)}.kind {kind}; give that first"
        last = name.rpartition(".")[2].removeprefix("--")
        known = self.names
        same = [flag for flag in known if flag.rpartition(".")[2] == last]
        near = list(dict.fromkeys([*same, *nearest(name, known)]))[:3]
        if inside := [flag for flag in self.names if flag.startswith(name + ".")]:
            return f"{name} is a group of settings; one of them is {inside[0]}"
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all of them"
        return f"unknown flag {name}; {hint}"


class _Group(BaseModel):
    """Base of the classes that ``_mirror`` makes; nothing is ever validated with them."""

    model_config = ConfigDict(defer_build=True)


def _mirror(
    model: BaseModel,
    *,
    hidden: Sequence[str] = (),
    kinds: Sequence[str] = (),
    base: Any = _Group,
) -> Any:
    """A class of the fields that a configuration has now, with its values as defaults: what help shows."""
    fields: dict[str, Any] = {}
    for name, (attribute, info) in fields_of(model).items():
        current = getattr(model, attribute, ...)
        if name in hidden:
            continue
        if isinstance(current, BaseModel):
            fields[attribute] = (_mirror(current, kinds=tuple(_variants(info.annotation))), ...)
        elif isinstance(current, Mapping):
            inner = get_args(_alternatives(info.annotation)[0])[-1]
            entries: Any = {key: (inner, value) for key, value in current.items()}
            fields[attribute] = (_mirror(create_model(name, **entries).model_construct()), ...)
        else:
            shown = copy.copy(info)
            shown.default = " ".join(map(str, current)) if isinstance(current, (tuple, list)) else current
            if shown.default == "":
                shown.default = "nothing"
            annotation: Any = info.annotation
            if name == "kind" and len(kinds) > 1:
                annotation = Literal[tuple(kinds)]
            fields[attribute] = (annotation, _variadic(shown) if is_sequence(annotation) else shown)
    return create_model(type(model).__name__, __base__=base, __doc__=type(model).__doc__, **fields)


def _variadic(info: FieldInfo) -> FieldInfo:
    from pydantic_settings import CliVariadicArg

    info.metadata = [*info.metadata, *get_args(CliVariadicArg[tuple])[1:]]
    return info


def _read(word: str, *, is_whole: bool, may_be_none: bool) -> str | int | None:
    """``1e6`` as an integer, for steps, and ``None`` as none; anything else as it was typed."""
    if may_be_none and word == "None":
        return None
    if is_whole and _WHOLE.fullmatch(word) and (number := float(word)).is_integer():
        return int(number)
    return word


def _is_given(value: Any) -> bool:
    from pydantic_core import PydanticUndefined

    return value is not PydanticUndefined


def _unshielded(value: Any) -> Any:
    """Values as they were typed; of a sequence, ``None`` alone is none."""
    if isinstance(value, list):
        return None if value == [None] else [_unshielded(inner) for inner in value]
    return value.removeprefix(SHIELD) if isinstance(value, str) and value.startswith(f"{SHIELD}-") else value
