"""Network layers made fast on CPUs: what repeats in a batch is computed once."""
