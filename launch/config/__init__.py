"""Configuration of a run: what each package defines, composed; presets; and what resolves and checks it."""
