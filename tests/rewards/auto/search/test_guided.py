"""Designers without a language model: what they propose follows from recorded play, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from rewards.auto.program import Program, sha_of
from rewards.auto.search.analyzer import analyse
from rewards.auto.search.auc import share_in_order
from rewards.auto.search.grammar import NEW_MESSAGE, Component, GrammarProgram, Vocabulary, parse_program
from rewards.auto.search.guided import (
    FAMILIES_OF_FRESH,
    SATURATED_WEIGHT,
    UNSEEN_WEIGHT,
    Evidence,
    GrammarDesigner,
    GuidedDraw,
    RandomGrammarDesigner,
    parents_of,
)
from rewards.auto.search.play import Play
from rewards.auto.search.proposal import Brief, Finding, Tried, Verdict
from rewards.auto.search.terms import Compare, Event, Measure, Said
from tests.rewards.auto.search.recorded_play import ACTIONS, played

T = 40
DESIGNERS = [GrammarDesigner(), RandomGrammarDesigner()]
BRIEF = Brief(
    task="MiniHack-Room-5x5-v0", goal="Get out.", action_names=ACTIONS, round=1, tried=(), episodes=(), analysis="",
    seed=1,
)  # fmt: skip


def near_something(seed, ending="out of time", *, hums=True):
    """Common words all the time; now and then the hero is next to the fixture, which may hum then."""
    rng = np.random.default_rng(seed)
    near = rng.random(T) < 0.2
    near[5], near[0] = True, False
    messages = np.where(rng.random(T) < 0.5, "Nothing happens.", "Never mind.").astype("<U40")
    messages[5] = "The fixture hums." if hums else messages[5]
    return played(
        T,
        ending,
        messages=messages,
        info__fixture_distance=np.where(near, 1, 5),
        info__message_count=np.ones(T, np.int64),
    )


FAILURES = [near_something(seed, hums=seed % 2 == 0) for seed in range(10)]


def dense(*atoms, sign=1):
    return Component(kind="dense", sign=sign, body=Event(atoms))


def tried(program, fitness=0.0, *, accepted=True, figures=None, by="grammar"):
    source = program if isinstance(program, str) else program.source
    outcome = "pass" if accepted else "fail"
    return Tried(
        sha=sha_of(source),
        source=source,
        round=1,
        by=by,
        verdict=Verdict(findings=[Finding(test="finite", outcome=outcome, reason="")]),
        fitness=fitness,
        analysis="",
        figures=figures or {},
    )


def sources(designer, brief, num=4):
    return [proposal.source for proposal in designer.propose(brief, num)]


# ---- designers


@pytest.mark.parametrize("designer", DESIGNERS, ids=lambda one: one.name)
@pytest.mark.parametrize("episodes", [(), FAILURES], ids=["unguided", "guided"])
def test_proposals_are_different_programs_of_the_grammar(designer, episodes):
    proposals = designer.propose(replace(BRIEF, episodes=episodes), 8)
    assert len({proposal.source for proposal in proposals}) == 8
    for proposal in proposals:
        program = parse_program(proposal.source)
        assert proposal.by == designer.name and not proposal.problem and not proposal.prompt
        assert all(one.comment in proposal.thoughts for one in program.components)
    assert designer.costs.requests == 0


@pytest.mark.parametrize("designer", DESIGNERS, ids=lambda one: one.name)
def test_the_seed_decides(designer):
    brief = replace(BRIEF, episodes=FAILURES)
    assert sources(designer, brief) == sources(designer, brief)
    assert sources(designer, brief) != sources(designer, replace(brief, seed=2))


@pytest.mark.parametrize("designer", DESIGNERS, ids=lambda one: one.name)
def test_nothing_is_proposed_twice(designer):
    before = sources(designer, BRIEF, 6)
    again = replace(BRIEF, tried=[tried(source, None, accepted=False) for source in before])
    assert not set(sources(designer, again, 6)) & set(before)


def test_the_first_round_covers_families():
    brief = replace(BRIEF, episodes=FAILURES)
    vocabulary = Vocabulary(ACTIONS, Play(FAILURES).texts)
    bodies = {name: {one.body for one in family} for name, family in vocabulary.families.items()}
    for source, families in zip(sources(GrammarDesigner(), brief), FAMILIES_OF_FRESH, strict=True):
        components = parse_program(source).components
        assert all(any(one.body in bodies[family] for one in components) for family in families)


def test_guided_candidates_find_what_is_near_and_random_ones_do_so_less_often():
    def hits(designer):
        briefs = [replace(BRIEF, episodes=FAILURES, seed=seed) for seed in range(8)]
        return sum("fixture" in source or "hums" in source for brief in briefs for source in sources(designer, brief))

    guided, unguided = hits(GrammarDesigner()), hits(RandomGrammarDesigner())
    assert guided >= 24 and guided > 1.5 * unguided


def test_later_rounds_vary_the_best():
    best = GrammarProgram((dense(NEW_MESSAGE), dense(Compare("info.new_tiles_seen", ">", 2))))
    good = GrammarProgram((Component(kind="dense", sign=1, body=Measure("obs.gold")), dense(Said("hums"))))
    poor = GrammarProgram((dense(Said("Never")),))
    known = [tried(poor, 0.1), tried(best, 0.9), tried(good, 0.5)]
    changed, crossed, other, fresh = GrammarDesigner().propose(
        replace(BRIEF, round=2, tried=known, episodes=FAILURES), 4
    )
    assert changed.parents == (known[1].sha,)
    assert crossed.parents == (known[1].sha, known[2].sha)
    assert other.parents[0] in (known[1].sha, known[2].sha)
    assert fresh.parents == ()
    assert set(parse_program(changed.source).components) & set(best.components)


def test_without_any_success_most_candidates_are_fresh():
    first, second = GrammarProgram((dense(NEW_MESSAGE),)), GrammarProgram((dense(Said("hums")),))
    known = [tried(first), tried(second, figures={"progress/cells_seen": 9.0})]
    proposals = GrammarDesigner().propose(replace(BRIEF, round=2, tried=known, episodes=FAILURES), 4)
    assert [proposal.parents for proposal in proposals] == [(known[1].sha,), (), (), ()]


def test_parents_are_ordered_by_fitness_then_progress_and_written_by_a_grammar():
    programs = [GrammarProgram((dense(Compare("info.new_tiles_seen", ">", least)),)) for least in range(4)]
    known = [
        tried(programs[0], 0.0, figures={"progress/cells_seen": 10.0, "progress/depth": 1.0}),
        tried(programs[1], 0.0, figures={"progress/cells_seen": 30.0, "progress/depth": 1.0}),
        tried(programs[2], 0.2),
        tried(programs[3], 0.9, accepted=False),
        tried("def reward(obs, prev_obs, action, info):\n    return 1\n", 0.9, by="llm some"),
        tried(GrammarProgram((dense(Said("x")),)), None),
    ]
    assert [parent.sha for parent in parents_of(known)] == [known[2].sha, known[1].sha, known[0].sha]


def test_components_that_were_no_use_are_replaced():
    program = GrammarProgram((dense(NEW_MESSAGE), dense(Said("hums"))))
    known = [tried(program, 0.3, figures={"component/says_hums/never_fired": 1.0, "component/goal/saturates": 1.0})]
    changed = GrammarDesigner().propose(replace(BRIEF, round=2, tried=known), 1)[0]
    components = parse_program(changed.source).components
    assert len(components) == 2 and program.components[0] in components and program.components[1] not in components
    assert "says_hums" in changed.thoughts


def test_what_the_analyzer_says_reaches_the_designer():
    program = GrammarProgram((dense(NEW_MESSAGE), dense(Said("hums"))))
    values = [{name: np.zeros(T) for name in ("goal", *program.names)} for _ in FAILURES]
    for of_one in values:
        of_one[program.names[0]][3] = 1.0
    components = {"goal": "sparse"} | dict.fromkeys(program.names, "dense")
    analysis = analyse(FAILURES, Program(source=program.source, columns=(), components=components), values)
    parents = parents_of([tried(program, 0.3, figures=analysis.figures)])
    assert parents[0].idle == {"says_hums"}


# ---- evidence


def weights(episodes, *components):
    evidence = Evidence(Play(episodes))
    return [evidence.judged(component) for component in components]


def test_rare_words_that_come_from_a_thing_weigh_most():
    (_, hums), (_, nothing), (_, never_said) = weights(
        FAILURES, dense(Said("hums")), dense(Said("Nothing")), dense(Said("absent"))
    )
    assert hums > 1 > UNSEEN_WEIGHT == never_said > nothing == SATURATED_WEIGHT


def test_what_was_not_on_the_map_weighs_little():
    (_, near), (_, absent) = weights(
        FAILURES,
        Component(kind="dense", sign=1, body=Measure("info.fixture_approach")),
        Component(kind="dense", sign=1, body=Measure("info.lava_approach")),
    )
    assert near > absent > 0


def test_words_that_come_with_harm_are_bad():
    messages = ["Ouch!" if t in (7, 20) else "" for t in range(T)]
    hurt = [4 if t in (7, 20) else 5 for t in range(T)]
    painful = [played(T, messages=messages, obs__hp=hurt, prev_obs__hp=[5] * T) for _ in range(3)]
    ((judged, _),) = weights(painful, dense(Said("Ouch")))
    assert judged.sign == -1


def test_successes_decide_signs():
    won = [near_something(seed, "success") for seed in range(4)]
    lost = [near_something(seed, hums=False) for seed in range(4)]
    (good, of_good), (bad, of_bad), (_, of_same) = weights(
        won + lost,
        dense(Said("hums"), sign=-1),
        dense(Compare("info.fixture_distance", "<=", 1), sign=1),
        dense(Compare("info.fixture_distance", "<=", 1), NEW_MESSAGE),
    )
    assert good.sign == 1 and of_good > max(of_bad, of_same)
    assert bad.sign == 1  # as often in successes as in failures: nothing speaks against its sign


def test_draws_go_by_weight():
    vocabulary = Vocabulary(ACTIONS, Play(FAILURES).texts)
    draw = GuidedDraw(vocabulary, Evidence(Play(FAILURES)))
    rng = np.random.default_rng(0)
    drawn = [draw.of("messages", rng) for _ in range(200)]
    assert sum("hums" in one.label or "fixture" in one.label for one in drawn) > 150
    spoilt = GuidedDraw(vocabulary, Evidence(Play(FAILURES)), [one.label for one in drawn])
    assert spoilt.ranked("messages")[0][0] < draw.ranked("messages")[0][0]


# ---- recorded play


def test_firing_of_a_term():
    play = Play([played(4, messages=["hum", "", "hum"]), played(6), played(10, messages=["hum"])])
    firing = play.firing(play.values(Event((Said("hum"),))))
    assert firing.step_share == 3 / 20 and firing.num_episodes == 2 and firing.episode_share == 2 / 3
    assert firing.variation == pytest.approx(np.std([2, 0, 1]) / 1.0)
    assert firing.success_auc is None


def test_auc_counts_ties_as_half():
    assert share_in_order(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == (0.5 + 1 + 1 + 1) / 4


def test_what_comes_with_success_does_not_lead_there():
    won = [played(5, "success", messages=["", "", "", "", "You win."]) for _ in range(3)]
    play = Play([*won, *(played(5) for _ in range(3))])
    assert play.firing(play.values(Event((Said("win"),)))).success_auc == 0.5


def test_lift_counts_one_imagined_case():
    play = Play([played(10)])
    hits, target = np.arange(10) < 1, np.arange(10) < 2
    assert play.lift(hits, target) == pytest.approx((1 + 0.2) / 2 - 0.2)


def test_soon_stays_within_the_episode():
    play = Play([played(3), played(3)])
    happens = np.array([False, False, False, True, False, True])
    assert play.soon(happens, 3).tolist() == [False, False, False, True, True, True]


def test_words_that_always_come_together_count_once():
    texts = Play([played(8, messages=["The fixture hums."]), played(8, messages=["You hum."])]).texts
    assert sorted(texts) == ["fixture"]  # hums comes with it; other words are too short


def test_no_play_is_refused():
    with pytest.raises(ValueError, match="no recorded play"):
        Play([])
