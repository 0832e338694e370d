"""What a labeller, and a reward that learns from its labels, report while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "labels/queued": "Questions (captions, or pairs of captions) waiting to be put to the annotator.",
        "labels/in_flight": "Questions put to the annotator and not answered yet.",
        "labels/claimed_elsewhere": "Questions whose answer another run that shares the label store is getting now.",
        "labels/asked": "Questions that the annotator answered for this run, resumes included, and those in flight; "
        "what the budget counts.",
        "labels/labelled": "Questions that the annotator answered with a value since the last start.",
        "labels/failed": "Questions whose answer could not be understood, or never came, since the last start.",
        "labels/refused": "Questions that the annotator would not answer, since the last start; not asked again.",
        "labels/uncovered": "Questions that the annotator said it has no answer for, since the last start.",
        "labels/retries": "Requests that were sent again since the last start.",
        "labels/over_budget": "Distinct questions not asked because the run's labelling budget was spent.",
        "labels/dropped": "Distinct questions that were dropped from the full queue since the last start, oldest "
        "first; they are asked again later.",
        "labels/from_store": "Questions answered from the label store without asking, since the last start.",
        "labels/breaker_open": "1 while the annotator is left alone because it failed again and again, else 0.",
        "labels/breaker_opens": "Times since the last start that the annotator began to be left alone.",
        "labels/llm_requests": "Requests that the language model answered, since the last start.",
        "labels/llm_prompt_tokens": "Tokens of prompts that the language model read, since the last start.",
        "labels/llm_cached_tokens": "Those of them that the server says it had in its prefix cache (vLLM tells them "
        "for the last prompt of each list only).",
        "labels/llm_completion_tokens": "Tokens that the language model wrote, since the last start.",
        "labels/known": "Distinct captions, or pairs of captions, whose answer has a value.",
        "labels/coverage": "Share of the caption occurrences of the last update that the reward had a value for.",
        "labels/labels_per_s": "Labels per second since the last line.",
        "labels/latency_s": "Seconds from sending captions to the annotator to having its answer, smoothed.",
    }
)
"""``{metric name: what it is}``."""
