"""Actor heads: features to actions, advantages to a loss."""
