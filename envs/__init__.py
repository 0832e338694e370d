"""Games as numpy arrays."""
