"""A run's folder: configuration, events, checkpoints, metrics, progress."""
