"""Holds the syntax tree of a reward program against lists of what is allowed, and reads off which fields it uses.

``answering`` puts it together; ``child`` does so in a process that is thrown away, ``python -I -S``, for which this
package knows nothing but the standard library, and its modules one another by relative imports. None of it ever runs,
or compiles, more than the tree of what it is given. Everything is an allow-list: what is not named here is refused.
"""
