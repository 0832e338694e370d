import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from envs.data import Config
from launch.config.flags import AFTER, AsJson, Selection, parse, select
from launch.config.presets import PRESETS
from launch.errors import UserError, unknown_name


class Games(Config):
    """The games."""

    task: str = "Room"
    """Which task."""
    num_games: Annotated[int, Field(gt=0)] = 8
    """Games side by side."""
    limit_steps: int | None = None


class Head(Config):
    dropout: float = 0.0


class Categorical(Head):
    kind: Literal["categorical"] = "categorical"
    temperature: float = 1.0


class Diffusion(Head):
    kind: Literal["diffusion"] = "diffusion"
    num_steps: Annotated[int, Field(gt=0)] = 4


class Deep(Config):
    head: Annotated[Categorical | Diffusion, Field(discriminator="kind")] = Categorical()


class Whole(Config):
    """A run."""

    env: Games = Games()
    deep: Deep = Deep()
    mode: Literal["fast", "slow"] = "fast"
    total_steps: int = 100
    lr: Annotated[float, Field(gt=0, le=1)] = 0.1
    verbose: bool = False
    out: Path = Path("runs")
    json_: Annotated[Path | None, Field(alias="json")] = None
    tasks: tuple[str, ...] = ()
    crop: tuple[int, int] = (9, 9)
    weights: dict[str, float] = {"env": 1.0, "oni": 0.1}  # noqa: RUF012
    pools: dict[str, Games] = {"a": Games()}  # noqa: RUF012

    @model_validator(mode="after")
    def _rule(self):
        if self.mode == "slow" and self.verbose:
            raise ValueError("mode slow cannot be verbose")
        return self


def go(*argv, default=None):
    return parse(default or Whole(), argv, "yendor train")


@pytest.mark.parametrize(
    ("argv", "changed"),
    [
        ([], {}),
        (["--env.num-games", "3"], {"env": Games(num_games=3)}),
        (["--env.num_games=3"], {"env": Games(num_games=3)}),
        (["--env.limit-steps", "5", "--env.limit-steps", "None"], {}),
        (["--total-steps", "1e6"], {"total_steps": 1_000_000}),
        (["--total-steps", "-5"], {"total_steps": -5}),
        (["--lr=1e-4"], {"lr": 1e-4}),
        (["--verbose"], {"verbose": True}),
        (["--verbose", "true"], {"verbose": True}),
        (["--verbose=False"], {}),
        (["--no-verbose"], {}),
        (["--verbose", "--no-verbose"], {}),
        (["--no-verbose", "false"], {"verbose": True}),
        (["--out", "/x/y_z"], {"out": Path("/x/y_z")}),
        (["--json", "x.json"], {"json_": Path("x.json")}),
        (["--tasks", "A", "B"], {"tasks": ("A", "B")}),
        (["--crop", "3", "5"], {"crop": (3, 5)}),
        (["--weights.oni", "0.5"], {"weights": {"env": 1.0, "oni": 0.5}}),
        (["--pools.a.task", "Maze"], {"pools": {"a": Games(task="Maze")}}),
        (["--deep.head.temperature", "2"], {"deep": Deep(head=Categorical(temperature=2))}),
        (["--deep.head.kind", "diffusion"], {"deep": Deep(head=Diffusion())}),
        (
            ["--deep.head.dropout", "0.5", "--deep.head.kind", "diffusion"],
            {"deep": Deep(head=Diffusion(dropout=0.5))},
        ),
        (
            ["--deep.head.num-steps", "2", "--deep.head.kind", "diffusion"],
            {"deep": Deep(head=Diffusion(num_steps=2))},
        ),
    ],
)
def test_flags_change_what_they_name(argv, changed):
    assert go(*argv) == Whole().model_copy(update=changed)


def test_the_default_is_kept_where_no_flag_speaks():
    default = Whole(env=Games(task="Maze"), deep=Deep(head=Diffusion(num_steps=9)), tasks=("A",))
    assert go("--lr", "0.5", default=default) == default.model_copy(update={"lr": 0.5})
    assert go("--deep.head.kind", "diffusion", default=default).deep == default.deep
    default = Whole(deep=Deep(head=Categorical(temperature=2.0, dropout=0.5)))
    assert go("--deep.head.kind", "diffusion", default=default).deep.head == Diffusion(dropout=0.5)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--env.num-gmes", "3"], "unknown flag --env.num-gmes; did you mean --env.num-games"),
        (["--task", "X"], "unknown flag --task; did you mean --env.task"),
        (["--zzzzzz", "X"], "unknown flag --zzzzzz; --help lists all of them"),
        (["--env", "X"], "--env is a group of settings; one of them is --env.task"),
        (["--weights.new", "1"], "unknown flag --weights.new; did you mean --weights."),
        (["--lr"], "--lr needs a value"),
        (["--lr", "--verbose"], "--lr needs a value"),
        (["--lr", "0.1", "0.2"], "--lr takes 1 value, but was given 2: 0.1 0.2"),
        (["--no-lr", "1"], "unknown flag --no-lr; did you mean --lr"),
        (["stray"], "unexpected argument 'stray'; settings are given as --name value"),
        (["-x"], "unexpected argument '-x'; settings are given as --name value"),
        (["--lr", "3"], "lr cannot be '3': it should be less than or equal to 1"),
        (["--lr", "much"], "lr cannot be 'much': it should be a valid number"),
        (["--env.num-games", "0"], "env.num_games cannot be '0': it should be greater than 0"),
        (["--env.num-games", "2.5"], "env.num_games cannot be '2.5': it should be a valid integer"),
        (["--crop", "3"], "crop.1 is required"),
        (["--crop", "3", "x"], "crop.1 cannot be 'x': it should be a valid integer"),
        (["--mode", "fats"], "mode cannot be 'fats': it should be 'fast' or 'slow'"),
        (["--mode", "slow", "--verbose"], "mode slow cannot be verbose"),
        (["--verbose", "maybe"], "--verbose is a switch: give it true, false or nothing, not 'maybe'"),
        (
            ["--deep.head.kind", "diffuse"],
            "--deep.head.kind cannot be 'diffuse'; allowed are categorical, diffusion",
        ),
        (["--deep.head.kind"], "--deep.head.kind cannot be ''; allowed are categorical, diffusion"),
        (
            ["--deep.head.num-steps", "2"],
            "--deep.head.num-steps belongs to --deep.head.kind diffusion; give that first",
        ),
        (
            ["--deep.head.kind", "diffusion", "--deep.head.num-steps", "0"],
            "deep.head.num_steps cannot be '0': it should be greater than 0",
        ),
        (["--lr", "3", "--env.num-games", "x"], "env.num_games cannot be 'x'"),
    ],
)
def test_bad_input_is_one_sentence(argv, text, capsys):
    with pytest.raises(UserError) as raised:
        go(*argv)
    assert str(raised.value).startswith(text)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr() == ("", "")


def test_every_bad_field_is_named():
    with pytest.raises(UserError, match=r"env\.num_games cannot be 'x'.*; lr cannot be '3'"):
        go("--lr", "3", "--env.num-games", "x")


def test_help_explains_and_exits_with_0(capsys):
    with pytest.raises(SystemExit) as stop:
        go("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for piece in (
        "usage: yendor train",
        "A run.",
        "--env.num-games INT",
        "Games side by side.",
        "{fast,slow}",
        "{categorical,diffusion}",
        "--lr FLOAT",
        "(default: 0.1)",
        "--verbose, --no-verbose",
    ):
        assert piece in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_goes_through_unchanged(name):
    config = PRESETS[name]()
    assert parse(config, [], "yendor train") == config
    changed = parse(config, ["--total-steps", "123456", "--env.task", "X", "--no-logging.tensorboard"], "y")
    assert (changed.total_steps, changed.env.task) == (123456, "X")


def test_unknown_names_point_to_the_nearest():
    assert str(unknown_name("preset", "rom", ["room", "maze"])) == "unknown preset 'rom'; did you mean room?"
    assert str(unknown_name("preset", "qq", ["room", "maze"])) == "unknown preset 'qq'; known are: maze, room"


def test_import_is_light():
    script = (
        "import sys, launch.config.flags, launch.runs.folder, launch.runs.progress, launch.runs.metrics; "
        "heavy = {'torch', 'ray', 'gymnasium', 'tensorboard', 'matplotlib', 'safetensors', 'jinja2', 'nle'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_value_may_begin_with_a_minus():
    assert parse(Whole(), ["--tasks", "win", "-turns@0.5", "-x = y", "-0.5"], "yendor").tasks == (
        "win", "-turns@0.5", "-x = y", "-0.5",
    )  # fmt: skip
    assert parse(Whole(), ["--env.task", "-Room"], "yendor").env.task == "-Room"
    with pytest.raises(UserError, match="-turns"):
        parse(Whole(), ["-turns"], "yendor")


class Kind(Config):
    kind: Literal["one", "two"] = "one"
    scale: float = 1.0


class Open(Config):
    """Takes a field for each name in ``more``."""

    model_config = ConfigDict(extra="allow")

    more: tuple[str, ...] = ()
    weight: float = 0.5

    @field_validator("more")
    @classmethod
    def _named(cls, more):
        if "bad" in more:
            raise ValueError("bad is no name")
        return more

    @model_validator(mode="after")
    def _with_fields(self):
        for name in self.more:
            value = (self.__pydantic_extra__ or {}).get(name, Kind())
            self.__pydantic_extra__[name] = value if isinstance(value, Kind) else Kind.model_validate(value)
        return self


class Holder(Config):
    inner: Open = Open()


def test_a_field_that_adds_fields_comes_first():
    found = parse(Holder(), ["--inner.new.scale", "2", "--inner.more", "new", "-odd", "--inner.weight", "1"], "yendor")
    assert (found.inner.new.scale, found.inner.weight, found.inner.more) == (2.0, 1.0, ("new", "-odd"))
    with pytest.raises(UserError, match=r"unknown flag --inner\.new\.scale"):
        parse(Holder(), ["--inner.new.scale", "2"], "yendor")
    with pytest.raises(UserError, match="bad is no name"):
        parse(Holder(), ["--inner.more", "bad", "--inner.bad.scale", "2"], "yendor")


class Shown(Config):
    """Show things."""

    what: CliPositionalArg[str]
    """A thing; or its number."""
    others: CliPositionalArg[tuple[str, ...]] = ()
    a: str = ""
    limit: int = 3
    as_json: AsJson = False
    after: Annotated[tuple[str, ...], Field(alias=AFTER)] = ()


@pytest.mark.parametrize(
    ("argv", "changed"),
    [
        (["x"], {}),
        (["--limit", "5", "x", "--json"], {"limit": 5, "as_json": True}),
        (["--json", "x", "y", "z", "--a", "b"], {"as_json": True, "others": ("y", "z"), "a": "b"}),
        (["x", "--", "--limit", "-q"], {"after": ("--limit", "-q")}),
    ],
)
def test_positionals_stand_before_between_and_after_flags(argv, changed):
    found = parse(Shown, argv, "yendor show")
    assert {name: getattr(found, name) for name in changed} == changed and found.what == "x"
    assert found.model_fields_set == {"what", *changed}


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match=r"^show needs a thing$"):
        parse(Shown, ["--limit", "5"], "yendor show")


class Choice(Selection):
    name: CliPositionalArg[str]
    quiet: bool = False

    def defaults(self):
        return Whole(env=Games(task=self.name))

    @classmethod
    def hidden(cls):
        return ("mode",)


def test_a_selection_says_which_other_flags_there_are():
    selection, rest = select(Choice, ["Maze", "--lr", "0.5", "--quiet", "--tasks", "-a", "b"], "yendor play")
    assert (selection.name, selection.quiet) == ("Maze", True)
    found = parse(selection.defaults(), rest, "yendor play", selection=selection)
    assert (found.env.task, found.lr, found.tasks) == ("Maze", 0.5, ("-a", "b"))
    with pytest.raises(UserError, match="unknown flag --mode"):
        parse(selection.defaults(), ["--mode", "slow"], "yendor play", selection=selection)


def test_help_breaks_no_flag(capsys):
    with pytest.raises(SystemExit):
        parse(PRESETS["keyroom"](), ["--help"], "yendor train")
    assert not [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith("-")]
