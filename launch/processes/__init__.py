"""Processes of a run: who plays, who learns, who labels, and what happens when one dies."""
