"""A language model as designer: what it is told, and what becomes of its replies."""

from dataclasses import replace

import pytest

from envs.features import FIELDS, describe_schema
from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program, ProgramRejectedError, Rejection, sha_of
from rewards.auto.search.designing_prompt import WORDING, DesigningPrompt, PromptTooLongError, describe_composition
from rewards.auto.search.llm import MAX_REPLIES, DesignerError, DesigningConfig, LLMDesigner
from rewards.auto.search.proposal import Brief, Finding, Tried, Verdict
from rewards.llm.config import LLMConfig, LLMError, LLMRefusedError
from rewards.llm.recorded import RecordedReplies
from rewards.llm.server import LLMServer, Reply
from tests.rewards.llm.fake_chat import FakeChat
from tests.rewards.llm.fake_llm_server import FakeLLM, FakeLLMServer

PASSED = Verdict(findings=[Finding(test="dry_run", outcome="pass", reason="answers 300 of 300 transitions")])
FAILED = Verdict(findings=[Finding(test="cycle", outcome="fail", reason="500 steps are paid 500")])


def program(number):
    return f"def reward(obs, prev_obs, action, info):\n    return {number}\n"


def fenced(number, before="So:"):
    return f"{before}\n```python\n{program(number)}```\n"


def tried(number, *, round=1, verdict=PASSED, fitness=0.0, analysis=""):
    source = program(number)
    return Tried(
        sha=sha_of(source), source=source, round=round, by="llm tiny", verdict=verdict, fitness=fitness,
        analysis=analysis or f"analysis of {number}",
    )  # fmt: skip


def brief(**changes):
    whole = Brief(
        task="KeyRoom", goal="open the locked door", action_names=("north", "apply"), round=2, tried=(), episodes=(),
        analysis="it dies of hunger", seed=1,
    )  # fmt: skip
    return replace(whole, **changes)


def check(source):
    """Admits all but programs that say ``bad``."""
    if "bad" in source:
        raise ProgramRejectedError(Rejection(code="E21", reason="name 'bad' is not available", line=2, column=12))
    return Program(source=source, columns=())


def designer(model, *, check=check, **config):
    return LLMDesigner(model, "tiny", DesigningConfig(**config), check=check, pauses_s=(0.0,))


def distinct(messages, sampling):
    return fenced(sampling.seed)


# ---- proposals


def test_each_candidate_is_asked_for_with_a_seed_of_its_own():
    model = FakeChat(distinct)
    made = designer(model)
    found = made.propose(brief(), 5)
    assert made.name == "llm tiny"
    assert len({p.source for p in found}) == 5 and all(not p.problem and p.attempts == 1 for p in found)
    assert all(
        p.by == "llm tiny" and p.thoughts == "So:" and p.prompt == model.asked[0][0][0]["content"] for p in found
    )
    seeds = [sampling.seed for _, sampling in model.asked]
    assert len(set(seeds)) == 5 and all(0 <= seed < 2**31 for seed in seeds)
    assert all(sampling.temperature > 0 for _, sampling in model.asked)
    assert model.closed == 1
    again = FakeChat(distinct)
    assert designer(again).propose(brief(), 5) == found
    other = FakeChat(distinct)
    designer(other).propose(brief(seed=2), 5)
    assert not set(seeds) & {sampling.seed for _, sampling in other.asked}


def test_a_reply_that_cannot_be_used_goes_back_with_the_reason():
    model = FakeChat("I would explore.", fenced("bad"), fenced(1))
    (found,) = designer(model).propose(brief(), 1)
    assert (found.source, found.attempts, found.problem) == (program(1), 3, "")
    second, third = model.asked[1][0], model.asked[2][0]
    assert [m["role"] for m in second] == ["user", "assistant", "user"] == [m["role"] for m in third]
    assert second[1]["content"] == "I would explore."
    assert "no reward program" in second[2]["content"]
    assert third[1]["content"] == fenced("bad")
    assert "E21 line 2 col 12: name 'bad' is not available" in third[2]["content"]
    assert len({sampling.seed for _, sampling in model.asked}) == 3


def test_after_three_replies_it_is_a_problem():
    model = FakeChat(fenced("bad"))
    made = designer(model)
    (found,) = made.propose(brief(), 1)
    assert len(model.asked) == MAX_REPLIES == 3
    assert (found.source, found.attempts) == ("", 3)
    assert found.problem.startswith("no usable code in 3 replies") and "E21" in found.problem
    assert made.costs.as_json() == {"requests": 3, "prompt_tokens": 30, "completion_tokens": 9}


def test_a_reply_that_was_cut_off_is_told_so():
    model = FakeChat(Reply("```python\ndef rew", is_cut=True), fenced(1))
    designer(model, max_tokens=77).propose(brief(), 1)
    assert "cut off after 77 tokens" in model.asked[1][0][2]["content"]


def test_no_two_proposals_are_the_same():
    model = FakeChat(fenced(1), fenced(1), fenced(2))
    first, second = designer(model).propose(brief(), 2)
    assert (first.source, second.source, second.attempts) == (program(1), program(2), 2)
    assert "another candidate of this round" in model.asked[2][0][2]["content"]
    same = FakeChat(fenced(1))
    found = designer(same).propose(brief(), 3)
    assert [p.source for p in found] == [program(1), "", ""] and "this very program" in found[1].problem


def test_what_was_tried_is_not_proposed_again():
    model = FakeChat(fenced(1), fenced(2))
    (found,) = designer(model).propose(brief(tried=[tried(1)]), 1)
    assert found.source == program(2)
    assert "was tried in round 1" in model.asked[1][0][2]["content"]


def test_the_real_check_refuses_with_its_reason():
    model = FakeChat(fenced("obs['hitpoints']"), fenced("obs['hp']"))
    (found,) = LLMDesigner(model, "tiny").propose(brief(), 1)
    assert found.source == program("obs['hp']") and found.attempts == 2
    assert "hitpoints" in model.asked[1][0][2]["content"]


# ---- the server


def test_a_failure_is_tried_again_and_then_one_sentence():
    model = FakeChat(LLMError("the server is asked too much"), fenced(1))
    assert designer(model).propose(brief(), 1)[0].source == program(1)
    with pytest.raises(DesignerError, match="no reward programs for round 2: the server is down"):
        designer(FakeChat(LLMError("the server is down"))).propose(brief(), 3)
    refusing = FakeChat(LLMRefusedError("the prompt is too long"))
    with pytest.raises(DesignerError, match="the prompt is too long"):
        designer(refusing).propose(brief(), 1)
    assert len(refusing.asked) == 1 and refusing.closed == 1


def test_an_unreachable_server_is_one_sentence():
    server = LLMServer(LLMConfig(base_url="http://127.0.0.1:9/v1", model="tiny"))
    with pytest.raises(DesignerError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached") as raised:
        designer(server).propose(brief(), 2)
    assert "\n" not in str(raised.value)


def test_round_after_round_through_a_server_and_again_from_its_record(tmp_path):
    llm = FakeLLM({"round 3": fenced(1), "round 2": fenced(0)}, spells=True)
    record = tmp_path / "replies.jsonl"
    with FakeLLMServer(llm) as server:
        live = RecordedReplies(record, "tiny", LLMServer(LLMConfig(base_url=server.url, model="tiny")))
        made = designer(live)
        rounds = [made.propose(brief(round=round), 1) for round in (2, 3)]
    assert [proposals[0].source for proposals in rounds] == [program(0), program(1)]
    replaying = designer(RecordedReplies(record, "tiny"))
    assert [replaying.propose(brief(round=round), 1) for round in (2, 3)] == rounds
    assert replaying.costs == made.costs
    with pytest.raises(DesignerError, match="holds no reply"):
        replaying.propose(brief(round=4), 1)


# ---- the prompt


def prompt(max_chars=10**6, num_shown=4, **changes):
    return DesigningPrompt(CompositionConfig(), max_chars, num_shown).of(brief(**changes))


def test_it_tells_all_that_a_designer_needs():
    text = prompt(analysis="it dies of hunger").text
    assert describe_schema() in text
    assert describe_composition(CompositionConfig()) in text
    for part in ("open the locked door", "KeyRoom", "north, apply", "it dies of hunger", "COMPONENTS", "round 2"):
        assert part in text, part
    assert "$" not in text


def test_the_example_in_it_is_a_program():
    from rewards.auto.language.admission import admit

    text = prompt().text
    start = text.index('COMPONENTS = {"goal"')
    example = text[start : text.index("How components become")]
    assert admit(example.strip() + "\n").components == {"goal": "sparse", "explore": "dense"}


def test_composition_is_described_as_configured():
    usual = describe_composition(CompositionConfig())
    assert "only the sign" in usual and "0.01" in usual and "-0.9..0.9" in usual
    other = describe_composition(CompositionConfig(values="clipped", dense="potential", sparse_weight=3.0))
    assert "clipped to -1..1" in other and "potential" in other and "pays 3 times" in other and "0.9" not in other


def test_the_fittest_programs_are_shown_with_source_and_the_others_with_their_reason():
    memory = [
        tried(1, fitness=0.2),
        tried(2, fitness=0.7),
        tried(3, fitness=None, verdict=FAILED),
        tried(4, fitness=0.1),
        tried(2, fitness=0.7),  # once more
        replace(tried(5, fitness=None), source="", sha=sha_of("")),  # no usable code came
    ]
    found = prompt(num_shown=2, tried=memory)
    assert found.shown == (sha_of(program(2)), sha_of(program(1)))
    assert found.text.count(program(2).rstrip()) == 1 and "solved the task in 70.0%" in found.text
    assert found.text.index(program(2).rstrip()) < found.text.index(program(1).rstrip())
    assert "analysis of 2" in found.text
    assert program(3).rstrip() not in found.text and program(4).rstrip() not in found.text
    assert f"{sha_of(program(3))[:12]}, round 1: not trained; cycle (fail): 500 steps are paid 500" in found.text


def test_what_does_not_fit_goes_oldest_failure_first_and_best_program_last():
    memory = [
        tried(11, fitness=0.9, round=1),  # the best, and the oldest
        tried(12, fitness=0.5, round=1),
        tried(13, fitness=0.6, round=2),
        tried(14, fitness=None, verdict=FAILED, round=1),
        tried(15, fitness=None, verdict=FAILED, round=2),
    ]
    whole = prompt(num_shown=3, tried=memory)
    held = []
    for max_chars in range(len(whole.text), len(prompt().text) - 1, -10):
        found = prompt(max_chars, num_shown=3, tried=memory)
        assert len(found.text) <= max_chars
        shas = [number for number in (11, 12, 13, 14, 15) if sha_of(program(number))[:12] in found.text]
        assert set(found.shown) == {sha_of(program(number)) for number in shas if number < 14}
        if not held or held[-1] != shas:
            held.append(shas)
    assert held == [[11, 12, 13, 14, 15], [11, 12, 13, 15], [11, 12, 13], [11, 13], [11], []]


def test_the_analysis_is_cut_where_it_must_be_and_the_schema_never():
    bare = len(prompt(analysis="").text)
    found = prompt(bare + 100, analysis="x" * 10**6)
    assert len(found.text) <= bare + 100 and "xxxxxxxx" in found.text and describe_schema() in found.text
    with pytest.raises(PromptTooLongError, match=f"needs {bare} characters"):
        prompt(bare - 1)
    with pytest.raises(DesignerError, match="allow more"):
        designer(FakeChat(fenced(1)), max_chars=100).propose(brief(), 1)


def test_a_wording_of_ones_own(tmp_path):
    own = tmp_path / "own.toml"
    texts = ("contract", "language", "schema", "task", "reflection", "tried", "program", "failure", "analysis")
    lines = ["workflow = 'Write code.'", "request = '$no_such_thing'", "retry = 'Again: $reason'"]
    own.write_text("\n".join([*lines, *(f"{key} = ''" for key in texts)]))
    made = DesigningPrompt(CompositionConfig(), 100, 1, own, FIELDS[:1])
    assert made.of(brief()).text.split() == ["Write", "code.", "$no_such_thing"]
    own.write_text("workflow = ''")
    with pytest.raises(ValueError, match="has no text 'contract'"):
        DesigningPrompt(CompositionConfig(), 100, 1, own)
    own.write_text("workflow")
    with pytest.raises(ValueError, match="is not TOML"):
        DesigningPrompt(CompositionConfig(), 100, 1, own)
    assert WORDING.exists()
