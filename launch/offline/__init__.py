"""Offline planning: logged play and what is learned from it."""
