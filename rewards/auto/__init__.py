"""Rewards written as code: designed, tested, contained, and kept with where they come from."""
