"""What ``yendor rewards`` prints: factors, preference trees, comparisons of recorded episodes."""
