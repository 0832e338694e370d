"""Rewards: what an experience is worth."""
