"""How far a NetHack game came, as BALROG measures it (Paglieri et al. 2024, "BALROG", section 3).

The share of human games which, having reached the same dungeon or experience level, went on to ascend.
Numbers: BALROG's published achievement statistics (MIT licence), rounded to four digits.
"""

from __future__ import annotations

# fmt: off
_BY_DEPTH = (
    .0126, .0154, .0175, .0212, .0265, .0354, .0485, .0696, .0977, .1256, .1613, .2061, .2566, .2925, .3088,
    .3249, .3401, .3526, .3655, .3790, .3929, .4083, .4258, .4452, .4664, .5068, .5544, .6016, .6465, .6913,
    .7101, .7176, .7232, .7284, .7328, .7369, .7421, .7471, .7537, .7610, .7674, .7725, .7772, .7813, .7859,
    .7890, .7930, .7967, .8018, .8068,
)
_BY_XP_LEVEL = (
    .0126, .0185, .0208, .0242, .0291, .0369, .0508, .0745, .1170, .1791, .2548, .3326, .4144, .4940, .5779,
    .6261, .6563, .6810, .7015, .7174, .7287, .7371, .7443, .7513, .7586, .7642, .7703, .7760, .7783, .7805,
)
# fmt: on


def progression(max_depth: int, max_xp_level: int) -> float:
    """BALROG progression in [0, 1]: the better of the two; 0 before the first level is entered."""
    return max(_reached(_BY_DEPTH, max_depth), _reached(_BY_XP_LEVEL, max_xp_level))


def _reached(table: tuple[float, ...], level: int) -> float:
    return 0.0 if level < 1 else table[min(level, len(table)) - 1]
