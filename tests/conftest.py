"""Options and hooks of the whole suite."""

import os

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
        reporter.write_line(f"skipped without leave (--allow-skip {allowed}): {', '.join(refused)}", red=True)
        session.exitstatus = 1
