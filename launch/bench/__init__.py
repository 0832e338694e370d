"""Benchmarks: contenders that are measured in turn, in one run, on one machine."""
