from __future__ import annotations

import pytest
from pydantic import ValidationError

from rewards.llm.config import LLMConfig, is_loopback


@pytest.mark.parametrize(
    "url", ["http://user:token@host/v1", "https://token@host", "http://u:token@host:port/v1", "user:token@host/v1"]
)
def test_a_secret_in_the_url_is_refused_and_not_quoted(url):
    with pytest.raises(ValidationError) as raised:
        LLMConfig(base_url=url)
    (error,) = raised.value.errors()
    assert "environment variable that llm.api_key_env names" in error["msg"] and "token" not in error["msg"]


def test_loopback_addresses():
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"))
    assert not any(is_loopback(host) for host in ("10.0.0.1", "0.0.0.0", "::", "localhost.example", ""))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "http://host:port/v1", "ftp://host/v1"])
def test_an_address_that_is_no_url(url):
    with pytest.raises(ValueError, match="is not a URL"):
        LLMConfig(base_url=url)
