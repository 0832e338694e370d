"""The API key of a server: in an environment variable, never in a configuration, a message or a log."""

from __future__ import annotations

import os


def read_key(variable: str) -> str | None:
    """The key that an environment variable holds, without blanks around it; None where it is unset or empty.

    Raises:
        ValueError: it could not be sent in a header; the message names the variable and does not quote the key.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the API key in the environment variable {variable} must be printable ASCII in one line")
    return key or None
