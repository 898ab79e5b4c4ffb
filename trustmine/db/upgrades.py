"""What takes a database of an earlier schema version to the present one.

UPGRADES[n] are the statements that take a database from user_version n to
n + 1. Old + upgrades = fresh: the same tables, columns, indices, views and
triggers as schema.sql makes, column order aside. A version that has been
released is never changed again.
"""

# 1 -> 2: nothing yet.
_TO_2: tuple[str, ...] = ()

UPGRADES: dict[int, tuple[str, ...]] = {1: _TO_2}
