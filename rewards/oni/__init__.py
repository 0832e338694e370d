"""Rewards from captions that an annotator labelled while the agent plays (ONI)."""
