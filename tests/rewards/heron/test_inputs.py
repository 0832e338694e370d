import numpy as np

from rewards.heron.inputs import InputScale


def test_input_scale_by_hand():
    narrow = np.array([[0, 1, 7], [2, 1, 7]], np.float32)
    scale = InputScale.unknown(3).widened(narrow)
    assert scale(narrow).tolist() == [[-1, 0, 0], [1, 0, 0]]
    # A column that has not varied is read as 0; one far off counts 5 standard deviations.
    assert scale(np.array([[100, 100, 0]], np.float32)).tolist() == [[5, 0, 0]]
    # A spread of 2 is not twice that of 1 and more; one of 3 is. A column that begins to vary is measured.
    same = scale.widened(np.array([[0, 1, 7], [4, 1, 7]], np.float32))
    assert same.mean.tolist() == [1, 0, 0] and same.std.tolist() == [1, 0, 0]
    wider = scale.widened(np.array([[0, 1, 7], [6, 5, 7]], np.float32))
    assert wider.mean.tolist() == [3, 3, 0] and wider.std.tolist() == [3, 2, 0]
