"""How to act and how to learn."""
