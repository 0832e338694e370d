"""Command-line flags over a configuration: ``--ppo.learning-rate 1e-4`` on top of a preset.

pydantic-settings makes an argparse parser of a configuration, its fields, values and docstrings; argparse reads what
was typed, and pydantic judges the values. What is wrong is said in one sentence.

A field that may hold one of several configuration classes (told apart by a ``kind`` field) is switched by
``--field.kind name``; it keeps what both classes inherit from a common one, and starts from the defaults of the
new class for the rest. Sequences take several values (``--env.tasks A B``), switches are ``--x`` and ``--no-x`` or
``--x true`` and ``--x false``, and ``None`` empties a field that may be empty. ``-`` and ``_`` in names are the same.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import re
import tempfile
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from envs.data import Config
from envs.files import reason_of
from launch.errors import UserError, nearest

ConfigT = TypeVar("ConfigT", bound=BaseModel)
SelectionT = TypeVar("SelectionT", bound="Selection")

JsonOut = Annotated[str | None, Field(alias="json")]
"""Type of the field behind ``--json OUT``; ``json`` itself is a method of pydantic's."""
AsJson = Annotated[bool, Field(alias="json")]
"""Type of the field behind ``--json``."""

AFTER = "--"
"""Alias of a field that takes the words after ``--``, which are no flags of ours."""

_SHIELD = " "
"""Before values that argparse would take for an option of one letter: -turns."""
_WORDS = {"true": True, "false": False}
_WHOLE = re.compile(r"\d+(\.\d+)?[eE]\+?\d{1,2}")


def parse(
    default: ConfigT | type[ConfigT],
    argv: Sequence[str],
    command: str,
    *,
    selection: Selection | None = None,
) -> ConfigT:
    """The configuration that ``argv`` makes of ``default``; ``--help`` prints help and exits with code 0.

    Args:
        default: what a preset or a file gave; or a class, whose fields without a default must be given.
        argv: the arguments after the command, without those that ``select`` has read.
        command: as the user types it, for help and errors.
        selection: what ``select`` has read.

    Raises:
        UserError: a flag is unknown (names the nearest), lacks its value, or its value is not allowed
            (names the field and what is).
    """
    config = default.model_construct() if isinstance(default, type) else default
    words, after = _cut(argv)
    config, tokens = _reshaped(config, _normalised(words))
    parser = _Parser(command, type(selection or config).__doc__)
    if selection is not None and {"-h", "--help"} & set(tokens):
        parser.add(type(selection).model_construct())
    parser.add(config, selection.hidden() if selection is not None else ())
    typed = _with_after(parser.read(tokens), config, after)
    return validate(type(config), _overlaid(config, typed))


def select(kind: type[SelectionT], argv: Sequence[str], command: str) -> tuple[SelectionT, list[str]]:
    """What says which other flags there are, and all other arguments.

    Positionals stand before the first flag that the selection does not know. ``--help`` prints its help where it is
    alone, and else is left to ``parse``.

    Args:
        kind: what is selected.
        argv: the arguments after the command.
        command: as the user types it.

    Raises:
        UserError: as in ``parse``, but for flags that the class does not know.
    """
    parser = _Parser(command, kind.__doc__)
    parser.add(kind.model_construct())
    words, after = _cut(argv)
    helps = [word for word in words if word in ("-h", "--help")]
    if len(helps) == len(argv):
        width = max(map(len, kind.choices()), default=0)
        parser.epilog = "\n".join(f"  {name:<{width}}  {text}" for name, text in kind.choices().items())
        parser.print_help()
        raise SystemExit(0)
    mine, others = [], []
    for name, values in _groups([word for word in _normalised(words) if word not in helps]):
        is_mine = not name or _positive(name) in parser.names
        (mine if is_mine else others).extend([name, *values] if name else values)
    left = [*helps[:1], *(word.removeprefix(_SHIELD) for word in others)]
    return validate(kind, _with_after(parser.read(mine), kind.model_construct(), after)), left


def has_required(model: type[BaseModel]) -> bool:
    """Whether something must be given."""
    return issubclass(model, Selection) or any(info.is_required() for info in model.model_fields.values())


def validate(model: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration.

    Raises:
        UserError: one sentence with the path of every bad field, its value and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_sentence(e, values) for e in error.errors(include_url=False))) from None


def result_path(out: str | None) -> Path | None:
    """Where ``--json OUT`` is to be written once hours of work are over; its folder is made now.

    Args:
        out: as it was typed; None = nowhere.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written.
    """
    if out is None:
        return None
    path = Path(out)
    try:
        is_folder = path.is_dir()
        if not is_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
                pass  # only to see that it can be
    except OSError as error:
        raise UserError(f"--json {out} cannot be written: {reason_of(error)}") from None
    if is_folder:
        raise UserError(f"--json {path} is a folder; give the name of a file")
    return path


# -- what there is to set ----------------------------------------------------------------------------


def _fields(model: BaseModel) -> dict[str, tuple[str, FieldInfo]]:
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


def _unions(model: BaseModel, path: str = "") -> Iterator[tuple[str, dict[str, type[BaseModel]]]]:
    """Every field that may hold one of several configuration classes: its dotted path, and its ``_variants``."""
    for name, (attribute, info) in _fields(model).items():
        if len(variants := _variants(info.annotation)) > 1:
            yield path + name, variants
        if isinstance(current := getattr(model, attribute, None), BaseModel):
            yield from _unions(current, f"{path}{name}.")


def _is_many(annotation: Any) -> bool:
    return any((get_origin(a) or a) in (tuple, list, set, frozenset) for a in _alternatives(annotation))


# -- what was typed ----------------------------------------------------------------------------------


def _cut(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What comes before ``--``, and after it; None where there is none."""
    words = list(argv)
    return (words, None) if AFTER not in words else (words[: (at := words.index(AFTER))], words[at + 1 :])


def _with_after(typed: dict[str, Any], config: BaseModel, after: Sequence[str] | None) -> dict[str, Any]:
    if after is not None and AFTER not in _fields(config):
        raise UserError("unexpected argument '--'; settings are given as --name value")
    return typed if after is None else typed | {AFTER: tuple(after)}


def _is_flag(token: str) -> bool:
    return token.startswith("--")


def _typed(path: str) -> str:
    return "--" + path.replace("_", "-")


def _shielded(word: str) -> str:
    return _SHIELD + word if word.startswith("-") and len(word) > 1 and word != "-h" else word


def _normalised(argv: Sequence[str]) -> list[str]:
    """``--a_b=c`` as ``--a-b c``; values that begin with a minus are shielded."""
    tokens: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if _is_flag(word):
            tokens += [_typed(name.removeprefix("--")), *([_shielded(value)] if equals else [])]
        else:
            tokens.append(_shielded(word))
    return tokens


def _groups(tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words after it; first the words before all flags, under an empty name."""
    starts = [i for i, token in enumerate(tokens) if _is_flag(token)]
    yield "", list(tokens[: starts[0] if starts else None])
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start], list(tokens[start + 1 : end])


def _positive(name: str) -> str:
    """``--a.no-b``, and ``--no-a.b``, as ``--a.b``."""
    head, dot, last = name.removeprefix("--").removeprefix("no-").rpartition(".")
    return f"--{head}{dot}{last.removeprefix('no-')}"


# -- values that decide which fields there are -------------------------------------------------------


def _reshaped(config: ConfigT, tokens: list[str]) -> tuple[ConfigT, list[str]]:
    """Apply what changes the fields: sequences of classes that take more fields, then every ``--field.kind name``.

    The configuration is judged as a whole only when all flags are known.
    """
    for token in [t for t in dict.fromkeys(tokens) if _is_flag(t)]:
        *path, name = token.removeprefix("--").replace("-", "_").split(".")
        owner = _walk(config, path)
        if path and isinstance(owner, BaseModel) and owner.model_config.get("extra") == "allow":
            field = type(owner).model_fields.get(name)
            if field is not None and _is_many(field.annotation):
                words = [w.removeprefix(_SHIELD) for flag, ws in _groups(tokens) if flag == token for w in ws]
                config = _with(config, path, validate(type(owner), owner.model_dump() | {name: words}))
    for token in sorted({t for t in tokens if t.endswith(".kind") and _is_flag(t)}, key=lambda t: t.count(".")):
        path = token.removeprefix("--").removesuffix(".kind").replace("-", "_").split(".")
        variants = dict(_unions(config)).get(".".join(path))
        if not variants:
            continue
        at = tokens.index(token)
        name = tokens[at + 1] if at + 1 < len(tokens) else ""
        if name not in variants:
            raise UserError(f"{token} cannot be '{name}'; allowed are {', '.join(sorted(variants))}")
        tokens = tokens[:at] + tokens[at + 2 :]
        current = _walk(config, path)
        if getattr(current, "kind", None) != name:
            config = _with(config, path, validate(variants[name], _shared(current, variants[name]) | {"kind": name}))
    return config, tokens


def _shared(current: Any, model: type[BaseModel]) -> dict[str, Any]:
    """What a configuration holds in the fields that it and another class inherit from a common one."""
    bases = [base for base in type(current).__mro__[1:] if issubclass(base, BaseModel) and issubclass(model, base)]
    return {name: getattr(current, name) for name in (bases[0].model_fields if bases else ())}


def _walk(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = getattr(value, name, None)
    return value


def _with(model: ConfigT, path: Sequence[str], value: Any) -> ConfigT:
    inner = value if len(path) == 1 else _with(getattr(model, path[0]), path[1:], value)
    return model.model_copy(update={path[0]: inner})


def _overlaid(config: BaseModel, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration with those that were typed, by dotted path, in their places."""
    given = {_fields(config)[path.partition(".")[0]][0] for path in typed} | config.model_fields_set
    values = config.model_dump(include=given, by_alias=True)
    for path, value in typed.items():
        *outer, last = path.split(".")
        inner = values
        for name in outer:
            inner = inner[name]
        inner[last] = value
    return values


# -- the parser --------------------------------------------------------------------------------------


class Selection(Config):
    """Flags and positionals that come first, since they decide which other flags there are."""

    def defaults(self) -> BaseModel:
        """What the other flags change.

        Raises:
            UserError: nothing was selected, or there is no such thing.
        """
        raise NotImplementedError

    @classmethod
    def choices(cls) -> dict[str, str]:
        """``{what may be selected: what it is}``, for help; empty where there are too many to list."""
        return {}

    @classmethod
    def hidden(cls) -> tuple[str, ...]:
        """Fields of ``defaults`` that are no flags."""
        return ()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in which no flag is broken at its hyphens."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
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
        if options.get("nargs") == "*" and _is_flag(names[0]):
            options["action"] = "extend"
        if options.get("action") is argparse.BooleanOptionalAction:
            self._switches.add(names[0])
        elif "None" in words or "int" in words:
            options["type"] = lambda word: _read(word, is_whole="int" in words, may_be_none="None" in words)
        if "metavar" in options:
            of_each = re.sub(r"tuple\[(.+?),\.\.\.\]", r"\1", metavar)
            options["metavar"] = re.sub(r"\b(int|float|str)\b", lambda m: m.group().upper(), of_each)
        if _is_flag(names[0]):
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
            raise UserError(self._refusal(left, words))
        return {path: _unshielded(value) for path, value in vars(found).items() if _is_given(value)}

    def _with_switches(self, tokens: Sequence[str]) -> Iterator[str]:
        """``--x false``, ``--a.no-x`` and what else a switch can be, as argparse reads it: ``--no-a.x``."""
        for name, words in _groups(tokens):
            positive = _positive(name)
            if positive not in self._switches:
                yield from [name, *words] if name else words
                continue
            is_on = name == positive
            if words and words[0].lower() in _WORDS:
                is_on, words = is_on is _WORDS[words[0].lower()], words[1:]
            yield positive if is_on else positive.replace("--", "--no-", 1)
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
            what = next((_fields(m)[missing][1].description for m in self._models if missing in _fields(m)), None)
            what = (what or missing).splitlines()[0].partition(";")[0].rstrip(".")
            raise UserError(f"{self.prog.removeprefix('yendor ')} needs {what[:1].lower()}{what[1:]}")
        raise UserError(message)

    def _refusal(self, left: Sequence[str], words: Sequence[str]) -> str:
        """Why something is left that no flag and no positional takes."""
        if flags := [word for word in left if _is_flag(word)]:
            return self._unknown(flags[0])
        stray = left[0].removeprefix(_SHIELD)
        for name, values in _groups(words):
            shown = [value.removeprefix(_SHIELD) for value in values]
            if left[0] not in values or _positive(name) not in self.names:
                continue
            if _positive(name) in self._switches:
                return f"{name} is a switch: give it true, false or nothing, not '{' '.join(shown)}'"
            return f"{name} takes 1 value, but was given {len(values)}: {' '.join(shown)}"
        return f"unexpected argument '{stray}'; settings are given as --name value"

    def _unknown(self, name: str) -> str:
        for model in self._models:
            for path, variants in _unions(model):
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
    for name, (attribute, info) in _fields(model).items():
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
            annotation: Any = info.annotation
            if name == "kind" and len(kinds) > 1:
                annotation = Literal[tuple(kinds)]
            fields[attribute] = (annotation, _variadic(shown) if _is_many(annotation) else shown)
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
    return value.removeprefix(_SHIELD) if isinstance(value, str) and value.startswith(f"{_SHIELD}-") else value


# -- what pydantic found -----------------------------------------------------------------------------


def _path(loc: Sequence[Any], values: Any) -> str:
    """The dotted path of an error; the names of union members that pydantic puts in are left out."""
    parts = []
    for part in loc[:-1]:
        if isinstance(values, Mapping) and part not in values:
            continue
        parts.append(part)
        is_container = isinstance(values, (Mapping, tuple, list))
        values = values[part] if is_container else getattr(values, str(part), None)
    return ".".join(str(part) for part in [*parts, *loc[-1:]])


def _sentence(error: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    path = _path(error["loc"], values)
    message = error["msg"].removeprefix("Value error, ").removesuffix(".").partition(", unable to parse")[0]
    if error["type"] == "missing":
        return f"{path} is required"
    if error["type"] == "extra_forbidden":
        return f"unknown key {path}"
    if error["type"] == "value_error" and not path:
        return message
    if error["type"] == "value_error":
        return f"{path}: {message}"
    allowed = message.replace("Input should", "it should")
    return f"{path} cannot be {error['input']!r}: {allowed[:1].lower()}{allowed[1:]}"
