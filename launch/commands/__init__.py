"""The commands of ``yendor``: one module each, a thin shell over functions that a notebook can call."""
