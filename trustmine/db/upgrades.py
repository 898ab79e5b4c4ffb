"""What takes a database of an earlier schema version to the present one.

UPGRADES[n] are the statements that take a database from user_version n to
n + 1. Old + upgrades = fresh: the same tables, columns, indices, views and
triggers as schema.sql makes, column order aside. A version that has been
released is never changed again.
"""

_TO_2: tuple[str, ...] = (
    """CREATE TABLE model_runs (
        id           INTEGER PRIMARY KEY,
        model_id     INTEGER NOT NULL REFERENCES models (id),
        worker       TEXT NOT NULL,
        n_sequences  INTEGER NOT NULL,
        started_at_s REAL NOT NULL,
        seen_at_s    REAL NOT NULL,
        ended_at_s   REAL,
        busy_s       REAL NOT NULL DEFAULT 0,
        n_calls      INTEGER NOT NULL DEFAULT 0,
        n_prompt     INTEGER NOT NULL DEFAULT 0,
        n_cached     INTEGER NOT NULL DEFAULT 0,
        n_completion INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "ALTER TABLE commits ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE labels ADD COLUMN other_cwes TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE labels ADD COLUMN severity TEXT",
    """ALTER TABLE labels ADD COLUMN quality TEXT NOT NULL DEFAULT 'list'
       CHECK (quality IN ('list', 'advisory', 'bisected', 'bisected_range', 'message'))""",
    "ALTER TABLE labels ADD COLUMN introduced_by TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE labels ADD COLUMN aliases TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE candidates (
           commit_id INTEGER NOT NULL REFERENCES commits (id),
           request_hash TEXT NOT NULL,
           model_id INTEGER NOT NULL REFERENCES models (id),
           prompt_hash TEXT NOT NULL,
           code TEXT NOT NULL,
           verdict TEXT NOT NULL CHECK (verdict IN ('fix', 'vulnerable', 'other')),
           PRIMARY KEY (commit_id, request_hash)
       ) STRICT, WITHOUT ROWID""",
)

UPGRADES: dict[int, tuple[str, ...]] = {1: _TO_2}
