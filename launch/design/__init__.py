"""The search for a reward program: propose, criticise, train, analyse, and again (``launch.design.search``)."""
