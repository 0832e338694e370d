"""Proposes reward programs, tests them, and learns from what they brought."""
