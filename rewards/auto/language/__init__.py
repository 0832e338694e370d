"""Admits source code as reward programs, or says where, why and what to write instead; none of it is run.

``admission`` is what the rest of the system uses. ``child`` judges a program in a process of its own, which knows
nothing but the standard library: it and the modules that it needs import one another relatively, and nothing else.
Everything is an allow-list: what is not named is refused.
"""
