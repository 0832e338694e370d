"""A fake of the ``vllm`` command: the same interface, no model. ``FAKE_VLLM`` says how it misbehaves."""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import resource_tracker, shared_memory

how = os.environ.get("FAKE_VLLM", "")
if sys.argv[1:] == ["--version"]:
    if how == "broken":
        sys.exit("ImportError: libcuda.so.1: cannot open shared object file")
    print("0.32.0+" + ("cu130" if how == "gpu" else "cpu"))
    sys.exit()

if how == "bad-model":
    print("ValueError: this model type is not known")
    sys.exit(1)
if how == "mute":
    time.sleep(600)

engine_code = (
    "import signal, sys, time\n"
    + ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if how == "stubborn" else "")
    + "print('engine', flush=True); time.sleep(600)"
)
engine = subprocess.Popen([sys.executable, "-c", engine_code], stdout=subprocess.PIPE)
engine.stdout.readline()
segment = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(segment._name, "shared_memory")  # leaks where it is killed, as vLLM's do
state = {
    "argv": sys.argv[1:],
    "env": dict(os.environ),
    "engine": engine.pid,
    "pid": os.getpid(),
    "segment": segment.name,
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(state if self.path == "/state" else {}).encode()
        self.send_response(200 if self.path in ("/health", "/state") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
value = dict(zip(sys.argv, sys.argv[1:], strict=False))
print("serving", flush=True)
ThreadingHTTPServer((value["--host"], int(value["--port"])), Handler).serve_forever()
