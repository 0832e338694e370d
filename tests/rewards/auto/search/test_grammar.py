"""The grammar: sources say what their terms say, are admitted, and are read back as what they were."""

import ast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.language.admission import admit
from rewards.auto.search.grammar import (
    MAX_DRAWN_COMPONENTS,
    Component,
    GrammarProgram,
    NotOfGrammarError,
    Vocabulary,
    parse_program,
)
from rewards.auto.search.terms import Acted, Change, Compare, Crossed, Event, Flag, Measure, Said, atom_of, event_of
from rewards.auto.search.variation import cross, drawn_components, mutate, random_program, uniform_draw
from tests.rewards.auto.search.recorded_play import ACTIONS, played

VOCABULARY = Vocabulary(ACTIONS, ("door", "don't", 'say "x"', "back\\slash"))
DRAW = uniform_draw(VOCABULARY)
SEEN = Component(kind="dense", sign=1, body=Event((Compare("info.new_tiles_seen", ">", 0),)))
NEW = Compare("info.message_count", "==", 1)


def some_programs(seed, num):
    """Random ones, their mutants, and their children."""
    rng = np.random.default_rng(seed)
    fresh = [random_program(DRAW, rng) for _ in range(num)]
    mutants = [mutate(program, DRAW, rng) for program in fresh]
    return [*fresh, *mutants, *(cross(a, b, rng) for a, b in zip(fresh, mutants[1:], strict=False))]


def steps_of(episode):
    """Arguments of ``reward`` for each step."""
    for t in range(episode.num_steps):
        groups = {"obs": {}, "prev_obs": {}, "info": {"succeeded": False, "died": False}, "": {}}
        for name, column in episode.columns.items():
            group, _, field = name.rpartition(".")
            groups[group][field] = column[t].item()
        yield groups["obs"], groups["prev_obs"], groups[""]["action"], groups["info"]


def run(source, steps):
    """What a source says of steps, by Python itself."""
    module = {}
    exec(source, module)
    return [module["reward"](*step) for step in steps]


@pytest.mark.parametrize(
    ("atom", "code"),
    [
        (Compare("info.new_tiles_seen", ">", 0), "info['new_tiles_seen'] > 0"),
        (Compare("obs.armor_class", "<=", -3), "obs['armor_class'] <= -3"),
        (Flag("info.has_key"), "info['has_key']"),
        (Change("hp", "<"), "obs['hp'] < prev_obs['hp']"),
        (Said("door"), "'door' in obs['message']"),
        (Said("don't"), "\"don't\" in obs['message']"),
        (Acted("kick"), "action == 'kick'"),
        (
            Crossed("info.tiles_seen", "info.new_tiles_seen", 25),
            "crossed(info['tiles_seen'], info['new_tiles_seen'], 25)",
        ),
    ],
)
def test_atoms_are_written_and_read_back(atom, code):
    assert atom.code == code
    assert atom_of(ast.parse(code, mode="eval").body) == atom


@pytest.mark.parametrize(
    "code",
    ["info['no_such_field'] > 0", "obs['message'] > 3", "info['has_key'] > 0", "obs['hp']", "hp > 0", "action == kick",
     "crossed(info['tiles_seen'], info['new_tiles_seen'], 0)", "obs['hp'] < prev_obs['gold']"],
)  # fmt: skip
def test_what_is_no_atom_is_refused(code):
    with pytest.raises(ValueError, match=r"not a condition|no field|cannot be passed"):
        event_of(code)


def test_terms_hold_where_they_say():
    columns = {
        "info.tiles_seen": np.array([20, 26, 30, 55, 60]),
        "info.new_tiles_seen": np.array([0, 6, 4, 25, 5]),
        "obs.hp": np.array([9, 8, 9, 9, 7]),
        "prev_obs.hp": np.array([9, 9, 8, 9, 9]),
        "obs.message": np.array(["", "The door opens.", "WHAMM!", "", "door"]),
        "action": np.array(["kick", "kick", "north", "north", "kick"]),
    }
    every = Crossed("info.tiles_seen", "info.new_tiles_seen", 25)
    assert every.holds(columns).tolist() == [False, True, False, True, False]
    assert Event((Said("door"), Acted("kick"))).values(columns).tolist() == [0, 1, 0, 0, 1]
    assert Measure("obs.hp").values(columns).tolist() == [0, -1, 1, 0, -1]
    assert Change("hp", "<").holds(columns).tolist() == [False, True, False, False, True]


def test_a_program_is_readable():
    kick = Event((Acted("kick"), Compare("info.closed_door_distance", "<=", 1)))
    program = GrammarProgram((SEEN, Component(kind="dense", sign=-1, body=kick)))
    assert program.names == ("new_tiles_seen_over_0", "plays_kick_closed_door_to_1")
    assert program.source.splitlines()[10:15] == [
        "    # The task's own end.",
        "    goal = 1.0 if info['succeeded'] else -1.0 if info['died'] else 0.0",
        "    # Good: new_tiles_seen is above 0.",
        "    new_tiles_seen_over_0 = 1.0 if info['new_tiles_seen'] > 0 else 0.0",
        "    # Bad: the action is kick and closed_door_distance is at most 1.",
    ]


def test_sources_say_what_their_terms_say():
    rng = np.random.default_rng(3)
    T = 6
    numbers = {name: rng.integers(-2, 3, T) for name in ("obs__hp", "prev_obs__hp", "obs__depth", "info__pet_approach")}
    episode = played(
        T,
        messages=["", "a door", "don't", 'say "x"', "back\\slash", "door"],
        action=["kick", "north", "open", "kick", "kick", "north"],
        info__new_tiles_seen=rng.integers(0, 20, T),
        info__tiles_seen=rng.integers(20, 60, T),
        info__message_count=[0, 1, 1, 2, 1, 3],
        info__closed_door_distance=rng.integers(0, 3, T),
        info__inventory_change=[0, 1, 1, -1, 0, 0],
        obs__blind=rng.random(T) < 0.5,
        **numbers,
    )
    fired, steps = 0, list(steps_of(episode))
    for program in some_programs(1, 60):
        said = run(program.source, steps)
        for name, component in zip(program.names, program.components, strict=True):
            expected = component.sign * component.body.values(episode.columns)
            assert [np.sign(one[name]) for one in said] == expected.tolist(), program.source
            fired += np.abs(expected).sum()
    assert fired > 100


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_programs_are_read_back_as_they_were(seed):
    for program in some_programs(seed, 2):
        assert parse_program(program.source) == program
        assert 1 <= len(program.components) <= MAX_DRAWN_COMPONENTS


def test_every_program_is_admitted():
    programs = some_programs(7, 80)
    assert len({program.source for program in programs}) > 200
    for program in programs:
        admitted = admit(program.source)
        assert tuple(admitted.components) == ("goal", *program.names)
        assert not admitted.open_groups
        columns = {column for component in program.components for column in component.body.columns}
        assert set(admitted.columns) == columns | {"info.succeeded", "info.died"}


def test_every_component_of_every_family_is_admitted():
    everything = [one for family in VOCABULARY.families.values() for one in family]
    assert {one.body.label for one in everything}
    for component in everything:
        program = GrammarProgram((component,))
        admit(program.source)
        assert parse_program(program.source) == program


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def reward(obs, prev_obs, action, info):\n    return info['new_tiles_seen']\n", "declares no COMPONENTS"),
        ("", "declares no COMPONENTS"),
        ("COMPONENTS = {'goal': 'sparse'", "was never closed"),
        ("COMPONENTS = {['goal']: 'sparse'}", "unhashable"),
        ("x = " + "-" * 7000 + "1", "cannot be varied"),
        ("#" * 9000, "more than"),
    ],
)
def test_what_others_wrote_cannot_be_varied(source, why):
    with pytest.raises(NotOfGrammarError, match=why):
        parse_program(source)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'dense'", "'denser'"),
        ("1.0 if info['new_tiles_seen'] > 0", "2.0 if info['new_tiles_seen'] > 0"),
        ("-1.0 if info['died'] else 0.0", "0.0"),
        ("    return {", "    goal = 5.0\n    return {"),
        ("def reward", "def helper():\n    return 1\n\n\ndef reward"),
        ("new_tiles_seen_over_0", "renamed"),
    ],
)
def test_what_was_changed_by_hand_cannot_be_varied(old, new):
    source = GrammarProgram((SEEN,)).source
    assert old in source
    with pytest.raises(NotOfGrammarError):
        parse_program(source.replace(old, new))


def test_comments_do_not_matter():
    program = GrammarProgram((SEEN,))
    assert parse_program(program.source.replace("# Good", "# Splendid")) == program


def test_sparse_components_cannot_be_had_again_and_again():
    with pytest.raises(ValueError, match="message_count"):
        Component(kind="sparse", sign=1, body=Event((Said("door"),)))
    assert Component(kind="sparse", sign=1, body=Event((Said("door"), NEW))).kind == "sparse"
    with pytest.raises(ValueError, match="same condition"):
        GrammarProgram((SEEN, Component(kind="dense", sign=-1, body=SEEN.body)))


def test_names_differ_within_a_program():
    loud, soft = (Component(kind="dense", sign=1, body=Event((Said(word),))) for word in ("Door", "door"))
    assert GrammarProgram((loud, soft)).names == ("says_door", "says_door_v2")


def test_every_kind_of_mutation_happens():
    program = GrammarProgram(
        (
            SEEN,
            Component(kind="dense", sign=1, body=Event((Said("door"), NEW))),
            Component(kind="dense", sign=-1, body=Event((Compare("info.steps_since_change", ">", 9),))),
        )
    )
    rng = np.random.default_rng(0)
    mutants = [mutate(program, DRAW, rng) for _ in range(300)]
    assert program not in mutants
    sizes = {len(mutant.components) for mutant in mutants}
    assert sizes == {2, 3, 4}
    components = [one for mutant in mutants for one in mutant.components]
    assert Component(kind="dense", sign=-1, body=SEEN.body) in components  # flipped
    assert Component(kind="sparse", sign=1, body=program.components[1].body) in components  # turned sparse
    assert Component(kind="dense", sign=1, body=Event((Said("door"),))) in components  # widened
    constants = {one.body.atoms[0].value for one in components if one.label.startswith("still_over")}
    assert {4, 9, 18} <= constants  # tightened and loosened
    assert any(len(one.body.atoms) == 3 for one in components if isinstance(one.body, Event))  # narrowed


def test_children_have_something_of_both_parents():
    rng = np.random.default_rng(0)
    first, second = (GrammarProgram(drawn_components(DRAW, 4, rng)) for _ in range(2))
    assert not set(first.components) & set(second.components)
    for _ in range(30):
        child = set(cross(first, second, rng).components)
        assert child <= {*first.components, *second.components}
        assert child & set(first.components) or len(child) == MAX_DRAWN_COMPONENTS
        assert 2 <= len(child) <= MAX_DRAWN_COMPONENTS


def test_the_vocabulary_knows_no_task():
    bare = Vocabulary(ACTIONS)
    assert "messages" not in bare.families
    assert all(not isinstance(atom, Said) for family in bare.families.values() for one in family
               if isinstance(one.body, Event) for atom in one.body.atoms)  # fmt: skip
