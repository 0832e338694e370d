"""Run by the interpreter that has vLLM (not Yendor's own): answers prompts within its own process.

    python -I offline_vllm_script.py FD SETTINGS

``SETTINGS`` is JSON: ``engine`` (arguments of ``vllm.LLM``). ``FD`` is an open file descriptor for answers. A line
``{}`` there says that the model is loaded. Then every line on standard input is one round of JSON: ``system``,
``users`` (as the chat template gets them), ``choices`` and ``top_logprobs``; it is answered with ``seconds`` and
``texts``. Ends with standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

# Looked for by the type checker in Yendor's own environment, where it need not be.
from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]
from vllm.sampling_params import StructuredOutputsParams  # pyright: ignore[reportMissingImports]


def answer(llm: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Render, tokenise and answer one round."""
    tokenizer = llm.get_tokenizer()
    choices = asked["choices"]
    sampling = SamplingParams(
        temperature=0.0,
        max_tokens=max(len(tokenizer.encode(choice, add_special_tokens=False)) for choice in choices),
        logprobs=asked["top_logprobs"],
        structured_outputs=StructuredOutputsParams(choice=choices),
    )
    began_s = time.perf_counter()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": asked["system"]}, {"role": "user", "content": user}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for user in asked["users"]
    ]
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    return {"seconds": time.perf_counter() - began_s, "texts": [output.outputs[0].text for output in outputs]}


def main(fd: int, settings: Mapping[str, Any]) -> None:
    """Load the model, then answer until standard input ends."""
    llm = LLM(**settings["engine"])
    with os.fdopen(fd, "w", buffering=1) as out:
        out.write("{}\n")
        for line in sys.stdin:
            out.write(json.dumps(answer(llm, json.loads(line))) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
