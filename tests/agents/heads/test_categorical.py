import numpy as np
import torch

from agents.config import CategoricalConfig, PPOConfig
from agents.heads.actor_head import HeadBatch
from agents.heads.categorical import CategoricalHead
from envs.protocols import GamesSpec


class Constant:
    """Noise that is always the same number."""

    def __init__(self, num_games, value):
        self._row = np.full((num_games, 1), value, np.float32)

    def uniform(self, num, games=None):
        return self._row if games is None else self._row[games]


def _head(logits):
    spec = GamesSpec(tasks=("x",), obs={}, action_names=tuple("abcd"[: len(logits)]))
    head = CategoricalHead(CategoricalConfig(), 1, spec)
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.copy_(torch.tensor(logits))
    return head


def test_sampling_inverts_the_distribution_function():
    head = _head(np.log([0.2, 0.5, 0.3]).tolist())
    for level, action in ((0.0, 0), (0.19, 0), (0.21, 1), (0.69, 1), (0.71, 2), (0.9999, 2)):
        sample = head.sample(torch.zeros(1, 1), None, Constant(1, level))
        assert sample.actions.item() == action
        torch.testing.assert_close(sample.log_prob.exp().item(), [0.2, 0.5, 0.3][action], rtol=1e-5, atol=0)


def test_masked_actions_are_never_drawn_and_share_no_probability():
    head = _head([0.0, 0.0, 0.0, 0.0])
    mask = torch.tensor([[False, True, True, False]])
    drawn = {
        head.sample(torch.zeros(1, 1), mask, Constant(1, level)).actions.item()
        for level in np.linspace(0, 1 - 1e-7, 101)
    }
    assert drawn == {1, 2}
    assert head.log_probs(torch.zeros(1, 1), mask).exp().tolist() == [[0.0, 0.5, 0.5, 0.0]]


def test_deterministic_takes_the_likeliest_allowed_action():
    head = _head([3.0, 1.0, 2.0])
    mask = torch.tensor([[False, True, True]])
    assert head.sample(torch.zeros(1, 1), mask, Constant(1, 0.0), deterministic=True).actions.item() == 2


def test_loss_and_entropy_of_masked_actions_are_finite_and_right():
    head = _head([0.0, 0.0, 0.0])
    batch = HeadBatch(
        actions=torch.tensor([1]),
        advantage=torch.tensor([2.0]),
        old_log_prob=torch.tensor([np.log(0.5)], dtype=torch.float32),
        action_mask=torch.tensor([[False, True, True]]),
        record={},
        generator=np.random.default_rng(0),
    )
    found = head.loss(torch.zeros(1, 1), batch, PPOConfig(entropy=0.1))
    torch.testing.assert_close(found.metrics["entropy"].item(), float(np.log(2)))
    torch.testing.assert_close(found.loss.item(), -2.0 - 0.1 * float(np.log(2)))
    found.loss.backward()
    assert torch.isfinite(head.logits.bias.grad).all()
