import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.ensemble import AGGREGATES, Ensemble, disagreement
from rewards.oni.config import CharsConfig, NGramsConfig
from rewards.oni.networks import character_ids, ngram_ids

NETWORKS = {
    "ngrams": NGramsConfig(buckets=512, width=4),
    "ngrams with characters": NGramsConfig(buckets=512, width=4, chars=(3, 4)),
    "chars": CharsConfig(width=4, max_length=32),
}
TEXTS = ("You kill the newt!", "Ouch!", "The newt bites! You feel very much worse than you ever did before.", "N")


def network_of(name, members=3, seed=0):
    return NETWORKS[name].build(members, torch.Generator().manual_seed(seed))


def test_ngrams_by_hand():
    # Words: ouch, !; pairs: ^ ouch, ouch !, ! $. With runs of 3 of " ouch! ": 5 more.
    assert len(ngram_ids("Ouch!", 1 << 16)) == 5
    assert len(ngram_ids("Ouch!", 1 << 16, (3,))) == 10
    assert ngram_ids("Ouch!", 1 << 16).tolist() == ngram_ids("  ouch ! ", 1 << 16).tolist()
    assert set(ngram_ids("ouch", 1 << 16)) & set(ngram_ids("ouch!", 1 << 16))
    # Stable across processes and releases: saved weights rely on it.
    assert ngram_ids("You die...", 1 << 16).tolist() == PINNED


PINNED = [3652, 14498, 25363, 29696, 32546, 40316, 40383, 46678]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.sampled_from([256, 8192]))
def test_ngrams_are_a_set_within_the_table(text, buckets):
    ids = ngram_ids(text, buckets, (2, 5))
    assert len(ids) and (np.diff(ids) > 0).all() and ids[0] >= 0 and ids[-1] < buckets


def test_characters_by_hand():
    assert character_ids("Az\u00e9\u4e00", 10).tolist() == [65, 122, 127, 63]
    assert character_ids("abc", 2).tolist() == [97, 98]
    assert character_ids("", 2).tolist() == character_ids("\0", 2).tolist() == [1]
    assert character_ids("~\u20ac\u00ff", 3).tolist() == [126, 63, 127]  # beyond Latin-1 a question mark


@pytest.mark.parametrize("name", NETWORKS)
def test_a_caption_scores_the_same_whoever_stands_beside_it(name):
    network = network_of(name)
    encoded = [network.encode(text) for text in TEXTS]
    together = network(encoded).detach().numpy()
    assert together.shape == (3, 4) and len(np.unique(together)) == 12
    for at, one in enumerate(encoded):
        np.testing.assert_allclose(network([one]).detach().numpy()[:, 0], together[:, at], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_members_do_not_know_of_each_other(name):
    network = network_of(name)
    encoded = [network.encode(text) for text in TEXTS]
    before = network(encoded).detach().numpy()
    ensemble = Ensemble(network, 0.1, 0.0)
    ensemble.step(encoded, lambda scores: scores[1].sum())
    after = ensemble.predict(encoded)
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]].astype(np.float64))
    assert (after[1] < before[1]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ensemble_goes_on_from_its_state(name):
    def stepped(ensemble, times):
        encoded = [ensemble.network.encode(text) for text in TEXTS]
        for _ in range(times):
            ensemble.step(encoded, lambda scores: (scores - 1).square().sum())
        return ensemble.predict(encoded)

    one, other = (Ensemble(network_of(name, seed=seed), 0.01, 0.1) for seed in (0, 1))
    stepped(other, 1)
    stepped(one, 3)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(stepped(one, 3), stepped(other, 3))
    with pytest.raises(ValueError, match="other networks"):
        one.load_state_dict(Ensemble(network_of(name, members=2), 0.01, 0.1).state_dict())


def test_aggregates_by_hand():
    opinions = np.array([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0]])
    std = np.sqrt((4 + 1 + 9) / 3)
    assert AGGREGATES["mean"](opinions).tolist() == [2, 1]
    assert AGGREGATES["median"](opinions).tolist() == [1, 1]
    assert AGGREGATES["min"](opinions).tolist() == [0, 1]
    assert AGGREGATES["mean_minus_std"](opinions).tolist() == pytest.approx([2 - std, 1])
    assert disagreement(opinions).tolist() == pytest.approx([std, 0])


def test_buckets_are_a_power_of_two():
    with pytest.raises(ValueError, match="power of two, 1000 is not"):
        NGramsConfig(buckets=1000)
