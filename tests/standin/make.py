"""Makes the stand-in, a small language model that knows the lexicon's verdicts by heart: for tests of everything
around a model, and no judge of anything that it was not shown.

    python tests/standin/make.py OUT [--vllm PATH]

Run from the repository's root. PATH is the vllm executable or its environment (else ``$YENDOR_VLLM``, ``.venv-vllm``).
Takes a few minutes of one core; tests keep the result, see ``cached``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from corpus import SPECS, answer, corpus, questions

from launch.llm.vllm import VLLM, find_vllm

__all__ = ["SPECS", "answer", "cached", "make", "questions"]

CACHE_ENV = "YENDOR_STANDIN_CACHE"
"""Environment variable that moves the cache from ``~/.cache/yendor/standin``."""
_TRAIN = Path(__file__).with_name("train.py")


def make(out: Path, vllm: VLLM) -> None:
    """Train into a folder, which appears when it is whole.

    Args:
        out: the folder; replaced where it exists.
        vllm: its interpreter trains.

    Raises:
        subprocess.CalledProcessError: training failed; its output tells why.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".standin-", dir=out.parent) as folder:
        lessons, model = Path(folder) / "corpus.json", Path(folder) / "model"
        lessons.write_text(json.dumps(corpus()))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([str(vllm.python), str(_TRAIN), str(lessons), str(model)], check=True, env=environment)
        shutil.rmtree(out, ignore_errors=True)
        model.rename(out)


def cached(vllm: VLLM) -> Path:
    """The stand-in of the present recipe, captions and prompts; trained where there is none yet."""
    digest = blake2b(_TRAIN.read_bytes() + json.dumps(corpus()).encode(), digest_size=8).hexdigest()
    root = Path(os.environ.get(CACHE_ENV, Path.home() / ".cache" / "yendor" / "standin"))
    out = root / digest / "standin"
    if not (out / "config.json").exists():
        make(out, vllm)
    return out


def main() -> None:
    """Make one where the user says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vllm", type=Path)
    flags = parser.parse_args()
    make(flags.out, find_vllm(flags.vllm))


if __name__ == "__main__":
    main()
