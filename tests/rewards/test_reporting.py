"""Figures as reports show them."""

import math

from rewards.reporting import NONE, figure, share, signed, whole


def test_figures_have_three_digits_or_are_whole():
    found = [figure(x) for x in (0.8634, 2.0, 16_200, 16_200.4, 1234.5, -0.0125)]
    assert found == ["0.863", "2", "16,200", "16,200", "1,234", "-0.0125"]


def test_shares_counts_and_signs():
    assert [share(0.945), share(0.0), whole(5200.4), signed(160.0), signed(-4.25)] == [
        "94.5 %", "0.0 %", "5,200", "+160", "\N{MINUS SIGN}4.25",
    ]  # fmt: skip


def test_what_is_not_known_is_no_zero():
    assert [figure(None), figure(math.nan), share(None), share(math.inf), whole(None), signed(None)] == [NONE] * 6
