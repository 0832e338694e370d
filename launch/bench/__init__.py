"""Benchmarks of what a user runs: games, training and labels, measured in alternation on one machine."""
