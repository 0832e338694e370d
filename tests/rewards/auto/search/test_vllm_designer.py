"""The designer and the critic's opinion through a real vLLM server, whose model can write no code."""

import pytest

from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program
from rewards.auto.search.llm import DesignerError, DesigningConfig, LLMDesigner, LLMOpinion
from rewards.auto.search.proposal import Brief
from rewards.llm.config import LLMConfig
from rewards.llm.recorded import RecordedReplies
from rewards.llm.server import LLMServer

pytestmark = pytest.mark.vllm

KEYS = (
    "workflow", "contract", "language", "schema", "task", "reflection", "tried", "program", "failure", "analysis",
)  # fmt: skip


def brief():
    return Brief(
        task="KeyRoom", goal="open the door", action_names=("north",), round=1, tried=(), episodes=(), analysis="",
        seed=1,
    )  # fmt: skip


def live(server):
    return LLMServer(LLMConfig(base_url=server.base_url, model=server.model))


@pytest.fixture
def config(tmp_path):
    """A prompt that the stand-in's context of 1024 tokens has room for."""
    wording = tmp_path / "wording.toml"
    lines = [*(f"{key} = ''" for key in KEYS), "request = 'Write a reward.'", "retry = 'No: $reason. Again.'"]
    wording.write_text("\n".join(lines))
    return DesigningConfig(wording=wording, max_tokens=16)


def test_a_model_without_code_ends_in_a_problem_and_can_be_replayed(vllm_server, config, tmp_path):
    record = tmp_path / "replies.jsonl"
    designer = LLMDesigner(RecordedReplies(record, vllm_server.model, live(vllm_server)), vllm_server.model, config)
    found = designer.propose(brief(), 2)
    for proposal in found:
        assert (proposal.source, proposal.attempts) == ("", 3)
        assert "no usable code in 3 replies: the reply" in proposal.problem
    costs = designer.costs
    assert costs.requests == 6 and costs.prompt_tokens > 0 and 6 <= costs.completion_tokens <= 6 * 16
    replaying = LLMDesigner(RecordedReplies(record, vllm_server.model), vllm_server.model, config)
    assert replaying.propose(brief(), 2) == found and replaying.costs == costs


def test_a_prompt_that_its_context_has_no_room_for_is_one_sentence(vllm_server):
    with pytest.raises(DesignerError, match=r"no reward programs for round 1: .* refuses the request") as raised:
        LLMDesigner(live(vllm_server), vllm_server.model).propose(brief(), 1)
    assert "\n" not in str(raised.value)


def test_an_opinion_that_cannot_be_read_is_undetermined(vllm_server):
    opinion = LLMOpinion(live(vllm_server), "open the door", CompositionConfig(), max_tokens=16)
    program = Program(source="def reward(obs, prev_obs, action, info):\n    return 1\n", columns=())
    found = opinion.of(program, [])
    assert found.outcome == "undetermined" and "cannot be read" in found.reason
    assert opinion.costs.requests == 1
