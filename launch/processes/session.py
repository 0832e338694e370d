"""A Ray session of the run's own, or a place in a cluster: begun and ended with the run."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from launch.errors import UserError

_OBJECT_STORE_BYTES = 512 * 1024**2


@contextmanager
def ray_session(address: str | None, num_cpus: int) -> Iterator[None]:
    """Ray for the duration of the block; leaves no process, shared memory or temporary folder behind.

    Args:
        address: a cluster to join; None starts one on this machine, with a session folder of its own.
        num_cpus: logical processors that the own session offers (actors take one each; more than there
            are cores is allowed: they share).
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING)
        except ConnectionError:
            raise UserError(f"ray_address: no Ray cluster answers at '{address}'") from None
        try:
            yield
        finally:
            ray.shutdown()
        return
    # Short, because Ray puts Unix sockets below it and their paths are limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="yendor-ray-"))
    # The games of a worker that is killed cannot clean up after themselves: they go with the session.
    outer = os.environ.get("YENDOR_TMPDIR")
    os.environ["YENDOR_TMPDIR"] = str(folder)
    try:
        _start(folder, num_cpus)
        yield
    finally:
        ray.shutdown()
        if outer is None:
            del os.environ["YENDOR_TMPDIR"]
        else:
            os.environ["YENDOR_TMPDIR"] = outer
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, num_cpus: int) -> None:
    # It says at each start that it asks for a token, which is what we want.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    # Ray's token, logs and sockets are for this user alone.
    umask = os.umask(0o077)
    try:
        ray.init(
            num_cpus=num_cpus,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=True,
            logging_level=logging.WARNING,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    finally:
        os.umask(umask)
