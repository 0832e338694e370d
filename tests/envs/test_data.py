import pytest
from pydantic import ConfigDict, ValidationError, model_validator

from envs.data import Config


class Inner(Config):
    size: int = 1


class Outer(Config):
    model_config = ConfigDict(extra="allow")

    inner: Inner = Inner()
    low: int = 0
    high: int = 9

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


def test_replace_changes_fields_and_keeps_the_rest_as_it_is():
    config = Outer(inner=Inner(size=3), high=5, added=Inner(size=4))
    changed = config.replace(low=2)
    assert (changed.low, changed.high, config.low) == (2, 5, 0)
    assert changed.inner is config.inner and changed.added is config.added


@pytest.mark.parametrize("changes", [{"low": 10}, {"low": "much"}, {"inner": {"sise": 1}}])
def test_replace_validates_the_whole(changes):
    with pytest.raises(ValidationError):
        Outer().replace(**changes)


def test_replace_refuses_a_field_that_there_is_not():
    with pytest.raises(ValidationError, match="sise"):
        Inner().replace(sise=2)
