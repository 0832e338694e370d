from launch.evaluation.evaluate import progression


def test_progression_is_the_better_of_depth_and_level():
    assert progression(1, 1) == 0.0126
    assert progression(10, 1) == 0.1256
    assert progression(1, 14) == 0.4940
    assert progression(99, 1) == 0.8068  # deeper than the table goes
    assert progression(0, 0) == 0.0
