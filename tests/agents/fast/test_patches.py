"""Convolutions over distinct patches: the same function and the same gradients as torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.fast import patches

needs_compiler = pytest.mark.skipif(not patches.is_compiled(), reason="agents._patches was not compiled")


@needs_compiler
def test_patches_are_numbered_in_the_order_in_which_they_come():
    maps = np.array([[[0, 0], [0, 0]], [[0, 1], [0, 0]]], np.int32)
    found = patches.find_patches(maps)
    assert found.places.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert found.cells[0].tolist() == [-1, -1, -1, -1, 0, 0, -1, 0, 0]
    assert found.cells[7].tolist() == [0, 1, -1, 0, 0, -1, -1, -1, -1]
    again = patches.find_patches(np.concatenate([maps, maps]))
    assert np.array_equal(again.cells, found.cells)
    assert np.array_equal(again.places, np.concatenate([found.places, found.places]))


@needs_compiler
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 400), st.integers(0, 99)
)
def test_patches_lie_where_they_say(num, height, width, stride, kinds, seed):
    maps = np.random.default_rng(seed).integers(0, kinds, (num, height, width)).astype(np.int32)
    found = patches.find_patches(maps, stride)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::stride, ::stride]
    assert np.array_equal(found.cells[found.places], windows.reshape(*found.places.shape, 9))
    assert len(np.unique(found.cells, axis=0)) == len(found.cells) == found.places.max() + 1


@needs_compiler
@pytest.mark.parametrize(("channels", "stride"), [(32, 1), (64, 2), (5, 3), (37, 2)])
def test_values_and_gradients_are_those_of_a_convolution(channels, stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, channels, 3, stride=stride, padding=1)
    nn.init.normal_(layer.bias)
    kinds = torch.randn(6, 4, requires_grad=True)
    maps = torch.randint(6, (20, 5, 7))
    maps[10:] = maps[:10]

    def outcome(flat):
        grads = torch.autograd.grad((flat * torch.arange(flat.numel()).view_as(flat).cos()).mean(), parameters)
        return [flat, *grads]

    parameters = [kinds, layer.weight, layer.bias]
    plain = outcome(layer(kinds[maps].permute(0, 3, 1, 2)).relu().flatten(1))
    found = patches.find_patches(maps.int().numpy(), stride)
    ours = outcome(patches.placed(patches.convolved(kinds, layer, found), found))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        again = patches.placed(patches.convolved(kinds, layer, found), found)
    assert torch.equal(again, ours[0])


@needs_compiler
def test_arrays_that_do_not_fit_are_refused():
    from agents import _patches

    with pytest.raises(ValueError, match="maps holds 12 bytes, expected 16"):
        patches_out, places = np.empty((4, 9), np.int32), np.empty(4, np.int32)
        _patches.find_patches(np.zeros(3, np.int32), 1, 2, 2, 1, patches_out, places)
    table, bias, out = np.zeros((2, 9, 4), np.float32), np.zeros(4, np.float32), np.zeros((1, 4), np.float32)
    with pytest.raises(IndexError, match="indices from 2 to 2, allowed are -1 to 1"):
        _patches.layer(table, np.full((1, 9), 2, np.int32), bias, 2, 1, 4, out)
    with pytest.raises(IndexError, match="indices from -1 to -1, allowed are 0 to 1"):
        _patches.place(np.zeros((2, 4), np.float32), np.full(3, -1, np.int32), 2, 1, 3, 4, np.zeros(12, np.float32))
