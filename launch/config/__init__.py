"""Configuration of a run: what each room defines, composed; presets; and what resolves and checks it."""
