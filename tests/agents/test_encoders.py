"""The encoder's shortcuts give what the plain layers give."""

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig
from agents.encoders import CropEncoder, Encoder, numbered
from agents.fast import patches
from agents.model import ActorCritic
from agents.policy import TorchPolicy, weights_of
from agents.rollout import GeneratorNoise
from envs.protocols import GamesSpec, ObsSpec

SPECS = {
    "glyphs_crop": ObsSpec(shape=(9, 9), dtype=np.dtype(np.int16)),
    "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
    "message": ObsSpec(shape=(256,), dtype=np.dtype(np.uint8)),
    "map_summary": ObsSpec(shape=(16, 21, 4), dtype=np.dtype(np.float32)),
}
CONFIGS = (EncoderConfig(), EncoderConfig(glyph_embedding=32, crop_stride=1), EncoderConfig(crop_channels=20))


def _obs(num, seed=0):
    """Like a game's: few glyphs, equal crops and messages."""
    rng = np.random.default_rng(seed)
    crops = rng.choice([0, 2359, 2378, 5976], (max(1, num // 2), 9, 9), p=[0.4, 0.2, 0.3, 0.1])
    return {
        "glyphs_crop": torch.from_numpy(crops[np.arange(num) % len(crops)].astype(np.int16)),
        "blstats": torch.from_numpy(rng.integers(-20, 2000, (num, 27))),
        "message": torch.from_numpy(rng.integers(0, 256, (3, 256)).astype(np.uint8)[np.arange(num) % 3]),
        "map_summary": torch.from_numpy(rng.random((num, 16, 21, 4), np.float32)),
    }


def _plain(encoder, obs):
    """What the layers say, one after the other."""
    features = []
    for key in encoder.keys:
        part, x = encoder.parts[key], obs[key]
        if key == "glyphs_crop":
            features.append(part.convolutions(part.embedding(x.int()).permute(0, 3, 1, 2)))
        elif key == "blstats":
            x = x.float()
            features.append(part.layers(torch.sign(x) * torch.log1p(x.abs()) / 3.0))
        else:
            features.append(part(x))
    return encoder.joint(torch.cat(features, 1))


def _outcome(encoder, features):
    loss = (features * torch.arange(features.numel()).view_as(features).sin()).mean()
    return [features, *torch.autograd.grad(loss, list(encoder.parameters()))]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("num", [1, 50])
def test_features_and_gradients_are_those_of_the_plain_layers(config, num, compiled, monkeypatch):
    if compiled and not patches.is_compiled():
        pytest.skip("agents._patches was not compiled")
    monkeypatch.setattr(patches, "is_compiled", lambda: compiled)
    torch.manual_seed(1)
    encoder = Encoder(config, SPECS)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    obs = _obs(num)
    ours, again, plain = (_outcome(encoder, f(obs)) for f in (encoder, encoder, lambda o: _plain(encoder, o)))
    for a, b, c in zip(ours, again, plain, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-5)
        assert torch.equal(a, b)


def test_bf16_is_as_close_as_that_of_the_plain_layers_and_has_gradients_in_fp32():
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(), SPECS)
    obs = _obs(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = encoder(obs).float(), _plain(encoder, obs).float()
    exact = _outcome(encoder, _plain(encoder, obs))
    for a, b, c in zip(_outcome(encoder, ours), _outcome(encoder, plain), exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - c).norm() < 1.5 * (b - c).norm()


def test_glyphs_may_be_of_any_number_type_and_none_may_be_negative():
    encoder = CropEncoder(EncoderConfig(), (9, 9))
    glyphs = _obs(4)["glyphs_crop"]
    assert torch.equal(encoder(glyphs.float()), encoder(glyphs))
    with pytest.raises(IndexError):
        encoder(-1 - glyphs)
    with pytest.raises(IndexError):
        encoder(glyphs + 5977)
    assert encoder(glyphs[:0]).shape == (0, encoder.width)


def test_values_are_numbered_in_their_order():
    present, numbers = numbered(np.array([[7, 2], [2, 9]], np.int16))
    assert present.tolist() == [2, 7, 9]
    assert numbers.tolist() == [[1, 0], [0, 2]]


def _policy(seed):
    class Spec:
        obs = SPECS
        num_actions = 6

    torch.manual_seed(seed)
    return TorchPolicy(ActorCritic(ModelConfig(encoder=EncoderConfig(hidden=16)), Spec(), 1), torch.device("cpu"))


def test_a_policy_of_fixed_weights_acts_alike_and_forgets_them_when_it_gets_new_ones():
    policy, other = _policy(1), weights_of(_policy(2).model)
    batches = [{key: x.numpy() for key, x in _obs(8, seed).items()} for seed in (0, 1, 0)]

    def played():
        noise = GeneratorNoise(8, 1)
        before = [policy.act(obs, None, None, noise) for obs in batches]
        policy.load(other, 2)
        return [*before, policy.act(batches[0], None, None, noise)]

    own = weights_of(policy.model)
    plain = played()
    policy.load(own, 1)
    with policy.fixed_weights():
        remembered = played()
    for a, b in zip(plain, remembered, strict=True):
        assert np.array_equal(a.actions, b.actions)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-5, atol=1e-6)
    policy.load(own, 1)  # outside, weights may change unseen
    policy.model.load_state_dict({name: torch.from_numpy(x) for name, x in other.items()})
    np.testing.assert_array_equal(policy.evaluate(batches[0], None), _evaluated(other, batches[0]))


def _evaluated(weights, obs):
    policy = _policy(3)
    policy.load(weights, 1)
    return policy.evaluate(obs, None)


def test_an_observation_without_an_encoder_is_refused():
    spec = GamesSpec(tasks=("x",), obs={"smell": ObsSpec(shape=(2,), dtype=np.dtype(np.float32))}, action_names=("a",))
    with pytest.raises(ValueError, match="no encoder for observation 'smell'"):
        ActorCritic(ModelConfig(), spec, 1)
