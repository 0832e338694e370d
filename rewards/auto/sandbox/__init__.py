"""Runs admitted programs where they can do no harm: an interpreter in a jailed process, and checks of its answers."""
