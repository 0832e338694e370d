"""The driver of a training run: its loop, and what it wires together."""
