"""HERON: a reward learned from a ranking of factors (Bukharin et al. 2023, arXiv 2309.02632)."""
