"""Command-line flags over a configuration: ``--ppo.learning-rate 1e-4`` on top of a preset.

``launch.config.parser`` reads what was typed, and pydantic judges the values. What is wrong is said in one sentence.

A field that may hold one of several configuration classes (distinguished by a ``kind`` field) is switched by
``--field.kind name``; it keeps what both classes inherit from a common one, and starts from the defaults of the
new class for the rest. Sequences take several values (``--env.tasks A B``), switches are ``--x`` and ``--no-x`` or
``--x true`` and ``--x false``, and ``None`` empties a field that may be empty. ``-`` and ``_`` in names are the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from envs.data import Config
from envs.files import reason_of
from launch.config.parser import (
    AFTER,
    SHIELD,
    Parser,
    UnknownFlagError,
    cut,
    fields_of,
    groups,
    is_flag,
    is_sequence,
    normalised,
    positive,
    unions,
)
from launch.errors import UserError

ConfigT = TypeVar("ConfigT", bound=BaseModel)
SelectionT = TypeVar("SelectionT", bound="Selection")

JsonOut = Annotated[str | None, Field(alias="json")]
"""Type of the field behind ``--json OUT``; ``json`` itself is a method of pydantic's."""
AsJson = Annotated[bool, Field(alias="json")]
"""Type of the field behind ``--json``."""


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
    words, after = cut(argv)
    config, tokens = _reshaped(config, normalised(words))
    parser = Parser(command, type(selection or config).__doc__)
    if selection is not None and {"-h", "--help"} & set(tokens):
        parser.add(type(selection).model_construct())
    parser.add(config, selection.hidden() if selection is not None else ())
    try:
        typed = parser.read(tokens)
    except UnknownFlagError as unknown:
        for path, owner, changes in _sequences(config, tokens):
            if unknown.name.removeprefix("--").split(".")[:-2] == path:  # a field refused that would have added it
                validate(type(owner), owner.model_dump() | changes)
        raise
    return validate(type(config), _overlaid(config, _with_after(typed, config, after)))


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
    parser = Parser(command, kind.__doc__)
    parser.add(kind.model_construct())
    words, after = cut(argv)
    helps = [word for word in words if word in ("-h", "--help")]
    if len(helps) == len(argv):
        width = max(map(len, kind.choices()), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, text in kind.choices().items()]
        parser.epilog = "\n".join(["to choose from:", *lines] if lines else lines)
        parser.print_help()
        raise SystemExit(0)
    mine, others = [], []
    for name, values in groups([word for word in normalised(words) if word not in helps]):
        is_mine = not name or positive(name) in parser.names
        (mine if is_mine else others).extend([name, *values] if name else values)
    left = [*helps[:1], *(word.removeprefix(SHIELD) for word in others)]
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


def _with_after(typed: dict[str, Any], config: BaseModel, after: Sequence[str] | None) -> dict[str, Any]:
    if after is not None and AFTER not in fields_of(config):
        raise UserError("unexpected argument '--'; settings are given as --name value")
    return typed if after is None else typed | {AFTER: tuple(after)}


# -- values that decide which fields there are -------------------------------------------------------


def _reshaped(config: ConfigT, tokens: list[str]) -> tuple[ConfigT, list[str]]:
    """Apply what changes the fields: sequences that add fields beside them, then every ``--field.kind name``.

    The configuration is judged as a whole only when all flags are known.
    """
    for path, owner, typed in _sequences(config, tokens):
        try:
            changed = type(owner).model_validate(owner.model_dump() | typed)
        except ValidationError:
            continue  # whether it is right is judged with all the others
        if set(fields_of(changed)) != set(fields_of(owner)):
            config = _with(config, path, changed)
    for token in sorted({t for t in tokens if t.endswith(".kind") and is_flag(t)}, key=lambda t: t.count(".")):
        path = token.removeprefix("--").removesuffix(".kind").replace("-", "_").split(".")
        variants = dict(unions(config)).get(".".join(path))
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


def _sequences(config: BaseModel, tokens: Sequence[str]) -> Iterator[tuple[list[str], BaseModel, dict[str, Any]]]:
    """Sequences that were typed: the path of the configuration that holds one, itself, and ``{field: words}``."""
    for token in [t for t in dict.fromkeys(tokens) if is_flag(t)]:
        *path, name = token.removeprefix("--").replace("-", "_").split(".")
        owner = _walk(config, path)
        field = type(owner).model_fields.get(name) if path and isinstance(owner, BaseModel) else None
        if field is not None and is_sequence(field.annotation):
            words = [w.removeprefix(SHIELD) for flag, ws in groups(tokens) if flag == token for w in ws]
            yield path, owner, {name: words}


def _shared(current: Any, model: type[BaseModel]) -> dict[str, Any]:
    """What a configuration holds in the fields that it and another class inherit from a common one."""
    bases = [base for base in type(current).__mro__[1:] if issubclass(base, BaseModel) and issubclass(model, base)]
    return {name: getattr(current, name) for name in (bases[0].model_fields if bases else ())}


def _walk(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = getattr(value, name, None)
    return value


def _with(model: ConfigT, path: Sequence[str], value: Any) -> ConfigT:
    """With another value at a path; not validated, since a flag that is yet to be applied may make it fit."""
    inner = value if len(path) == 1 else _with(getattr(model, path[0]), path[1:], value)
    return model.model_copy(update={path[0]: inner})


def _overlaid(config: BaseModel, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration with those that were typed, by dotted path, in their places."""
    given = {fields_of(config)[path.partition(".")[0]][0] for path in typed} | config.model_fields_set
    values = config.model_dump(include=given, by_alias=True)
    for path, value in typed.items():
        *outer, last = path.split(".")
        inner = values
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return values


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
