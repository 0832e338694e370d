"""Language models behind an OpenAI-compatible server: how they are reached, and how what they say is read."""
