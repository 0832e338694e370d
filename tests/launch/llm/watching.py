"""What tests see of a server and its processes."""

import json
import time
import urllib.request
from pathlib import Path


def state(base_url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(opener.open(base_url.removesuffix("/v1") + "/state", timeout=5))


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20.0):
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def argument(argv, flag):
    return argv[argv.index(flag) + 1]
