"""Plays listed episodes with a policy, and summarises them."""
