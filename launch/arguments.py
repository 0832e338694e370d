"""Command-line flags over a configuration: ``--ppo.learning-rate 1e-4`` on top of a preset.

tyro reads the flags and prints the help; pydantic judges the values. What is wrong is said in one sentence.

A field that may hold one of several configuration classes (told apart by a ``kind`` field) is switched by
``--field.kind name``; it keeps what both classes inherit from a common one, and starts from the defaults of the
new class for the rest. Sequences take several values (``--env.tasks A B``), switches are ``--x`` and ``--no-x`` or
``--x true`` and ``--x false``, and ``None`` empties a field that may be empty. ``-`` and ``_`` in names are the same.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from envs.files import reason_of
from launch import config_tree
from launch.errors import UserError, nearest

ConfigT = TypeVar("ConfigT", bound=BaseModel)

_MINUS = re.compile(r"-[^-\d.]")
"""Values that tyro would take for an option of one letter: -turns."""
_SHIELD = " "

_WORDS = {"true": True, "false": False}


def parse(default: ConfigT, argv: Sequence[str], prog: str, description: str | None = None) -> ConfigT:
    """The configuration that ``argv`` makes of ``default``; ``--help`` prints help and exits with code 0.

    Args:
        default: what a preset or a file gave.
        argv: the arguments after the command and the preset.
        prog: the command as the user typed it, for the help.
        description: the first paragraph of the help; None = the docstring of the class.

    Raises:
        UserError: a flag is unknown (names the nearest), lacks its value, or its value is not allowed
            (names the field and what is).
    """
    default, tokens = _switch_types(default, _split(argv))
    if not {"-h", "--help"} & set(tokens):
        tokens = _checked(default, tokens)
    values = _unshielded(_tyro(default, tokens, prog, description))
    return validate(type(default), values)


def validate(model: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration.

    Raises:
        UserError: one sentence with the path of every bad field, its value and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_sentence(e, values) for e in error.errors(include_url=False))) from None


def overridable(default: BaseModel) -> list[str]:
    """Every flag of a configuration as it is typed: ``--ppo.learning-rate``."""
    return [_typed(flag.path) for flag in config_tree.flags(default)]


# -- before tyro: names, missing values, switches ---------------------------------------------------


def _split(argv: Sequence[str]) -> list[str]:
    """``--a=b`` as ``--a b``; names with hyphens."""
    tokens: list[str] = []
    for token in argv:
        if _is_flag(token):
            name, equals, value = token.partition("=")
            tokens += [_typed(name.removeprefix("--"))] + ([value] if equals else [])
        else:
            tokens.append(token)
    return tokens


def _is_flag(token: str) -> bool:
    return token.startswith("--") and len(token) > 2


def _typed(path: str) -> str:
    return "--" + path.replace("_", "-")


def _switch_types(default: ConfigT, tokens: list[str]) -> tuple[ConfigT, list[str]]:
    """Apply every ``--field.kind name``, outer fields first."""
    switches = [token for token in tokens if token.endswith(".kind") and _is_flag(token)]
    for token in sorted(switches, key=lambda t: t.count(".")):
        at = tokens.index(token)
        path = token.removeprefix("--").removesuffix(".kind").replace("-", "_").split(".")
        owner = _walk(default, path[:-1])
        hints = get_type_hints(type(owner)) if isinstance(owner, BaseModel) else {}
        variants = config_tree.variants(hints.get(path[-1]))
        if not variants:
            continue
        name = tokens[at + 1] if at + 1 < len(tokens) else ""
        if name not in variants:
            raise UserError(f"{token} cannot be '{name}'; allowed are {', '.join(sorted(variants))}")
        tokens = tokens[:at] + tokens[at + 2 :]
        current = getattr(owner, path[-1])
        if getattr(current, "kind", None) != name:
            kept = _shared(current, variants[name])
            default = _with(default, path, validate(variants[name], kept | {"kind": name}))
    return default, tokens


def _shared(current: Any, model: type[BaseModel]) -> dict[str, Any]:
    """What a configuration holds in the fields that it and another class inherit from a common one."""
    if not isinstance(current, BaseModel):
        return {}
    bases = [base for base in type(current).__mro__[1:] if issubclass(base, BaseModel) and issubclass(model, base)]
    return {name: getattr(current, name) for name in (bases[0].model_fields if bases else ())}


def _walk(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = getattr(value, name, None)
    return value


def _with(model: ConfigT, path: Sequence[str], value: Any) -> ConfigT:
    inner = value if len(path) == 1 else _with(getattr(model, path[0]), path[1:], value)
    return model.model_copy(update={path[0]: inner})


def _checked(default: BaseModel, tokens: list[str]) -> list[str]:
    """Refuse unknown flags, missing and stray values; turn ``--x true`` into ``--x``."""
    flags = {_typed(flag.path): flag for flag in config_tree.flags(default)}
    checked: list[str] = []
    if tokens and not _is_flag(tokens[0]):
        raise UserError(f"unexpected argument '{tokens[0]}'; settings are given as --name value")
    for name, values in _groups(tokens):
        positive = name if name in flags else _positive(name)
        flag = flags.get(positive)
        if flag is None or not (flag.is_switch or positive == name):
            raise UserError(_unknown(name, default, flags))
        if flag.is_switch:
            checked.append(_switch(name, positive, values))
            continue
        expected = flag.num_values
        if not values and expected == 1:
            raise UserError(f"{name} needs a value")
        if expected not in (None, len(values)) and values != ["None"]:
            many = "value" if expected == 1 else "values"
            raise UserError(f"{name} takes {expected} {many}, but was given {len(values)}: {' '.join(values)}")
        checked += [name, *(_SHIELD + value if _MINUS.match(value) else value for value in values)]
    return checked


def _groups(tokens: list[str]) -> Iterator[tuple[str, list[str]]]:
    starts = [i for i, token in enumerate(tokens) if _is_flag(token)]
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start], tokens[start + 1 : end]


def _positive(name: str) -> str:
    """``--a.no-b``, and ``--no-a.b``, as ``--a.b``."""
    head, dot, last = name.removeprefix("--").removeprefix("no-").rpartition(".")
    return f"--{head}{dot}{last.removeprefix('no-')}"


def _switch(name: str, positive: str, values: list[str]) -> str:
    """The form that tyro reads: ``--a.b`` or ``--a.no-b``."""
    word = "".join(values).lower() or "true"
    if len(values) > 1 or word not in _WORDS:
        raise UserError(f"{name} is a switch: give it true, false or nothing, not '{' '.join(values)}'")
    if _WORDS[word] is (name == positive):
        return positive
    head, dot, last = positive.removeprefix("--").rpartition(".")
    return f"--{head}{dot}no-{last}"


def _unknown(name: str, default: BaseModel, flags: Mapping[str, config_tree.Flag]) -> str:
    for path, variants in config_tree.unions(default):
        for kind, model in variants.items():
            if name in {_typed(f"{path}.{field}") for field in model.model_fields}:
                return f"{name} belongs to {_typed(path)}.kind {kind}; give that first"
    last = name.rpartition(".")[2].removeprefix("--")
    same = [known for known in flags if known.rpartition(".")[2] == last]
    near = list(dict.fromkeys([*same, *nearest(name, flags)]))[:3]
    inside = [known for known in flags if known.startswith(name + ".")]
    if inside:
        return f"{name} is a group of settings; one of them is {inside[0]}"
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all of them"
    return f"unknown flag {name}; {hint}"


# -- tyro -------------------------------------------------------------------------------------------


def _tyro(default: BaseModel, tokens: list[str], prog: str, description: str | None) -> dict[str, Any]:
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(default),  # pyright: ignore[reportReturnType]  # the rule below answers with a mapping
                default=default,
                args=tokens,
                prog=prog,
                description=description,
                config=(tyro.conf.AvoidSubcommands,),
                registry=_registry(default),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_unboxed(complaint.getvalue())) from None


def _unshielded(value: Any) -> Any:
    """Values as they were typed, at any depth."""
    if isinstance(value, dict):
        return {name: _unshielded(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_unshielded(inner) for inner in value)
    shielded = isinstance(value, str) and value.startswith(_SHIELD) and _MINUS.match(value, len(_SHIELD))
    return value[len(_SHIELD) :] if shielded else value


def _registry(default: BaseModel) -> Any:
    """Rules that make tyro hand over what was typed, so that pydantic alone judges it, all at once."""
    import tyro

    types_of = {model: tuple(variants) for _, variants in config_tree.unions(default) for model in variants.values()}
    rules = tyro.constructors.ConstructorRegistry()

    @rules.struct_rule
    def _as_mapping(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, BaseModel)):
            return None
        model = info.type
        hints: dict[str, Any] = get_type_hints(model)
        if model in types_of:
            hints["kind"] = Literal[types_of[model]]
        fields = tuple(
            tyro.constructors.StructFieldSpec(
                name=field.alias or name,
                type=hints[name],
                default=getattr(info.default, name)
                if isinstance(info.default, model)
                else tyro.MISSING_NONPROP
                if field.is_required()
                else field.get_default(call_default_factory=True),
                helptext=field.description,
            )
            for name, field in model.model_fields.items()
        )

        def instantiate(**values: Any) -> dict[str, Any]:
            return values

        instantiate.__doc__ = model.__doc__
        return tyro.constructors.StructConstructorSpec(instantiate=instantiate, fields=fields)

    @rules.primitive_rule
    def _as_typed(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec | None:
        metavar = _metavar(info.type)
        if metavar is None:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: _whole(words[0]) if info.type is int else words[0],
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(value)],
        )

    return rules


def _metavar(annotation: Any) -> str | None:
    if annotation in (int, float):
        return annotation.__name__.upper()
    if get_origin(annotation) is Literal and all(isinstance(a, str) for a in get_args(annotation)):
        return "{" + ",".join(get_args(annotation)) + "}"
    return None


def _whole(word: str) -> str | int:
    """``1e6`` as an integer, for steps; anything else as it was typed."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", word) and (number := float(word)).is_integer():
        return int(number)
    return word


def _unboxed(panel: str) -> str:
    """The message inside tyro's box as one line: its longest paragraph, without the hint at --help."""
    paragraphs = [""]
    for line in panel.splitlines():
        if re.search("[\u2500-]{4}", line):  # a border or a rule
            paragraphs.append("")
        else:
            paragraphs[-1] += " " + line.strip("\u2502| ")
    said = [re.sub(r"\s+", " ", p).strip(" .") for p in paragraphs if "--help" not in p]
    return max(said, key=len) or "the arguments cannot be read"


# -- after tyro: what pydantic found ----------------------------------------------------------------


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


def take_value(argv: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """A flag that cannot be a field's name (``--json``): its value, or None, and the other arguments.

    Raises:
        UserError: the flag stands without a value.
    """
    rest = list(argv)
    for i, token in enumerate(rest):
        name, equals, value = token.partition("=")
        if name != flag:
            continue
        if equals:
            del rest[i]
            return value, rest
        if i + 1 == len(rest) or rest[i + 1].startswith("--"):
            raise UserError(f"{flag} needs a value")
        value = rest[i + 1]
        del rest[i : i + 2]
        return value, rest
    return None, rest


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
