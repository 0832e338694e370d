"""Processes, clusters, commands: the only place that wires things."""
