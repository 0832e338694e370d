"""What ``yendor labels`` does, an action a module."""
