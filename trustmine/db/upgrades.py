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
    """CREATE TABLE licences (
        commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
        spdx      TEXT NOT NULL,
        source    TEXT CHECK (source IN ('file', 'repository')),
        path      TEXT
    ) STRICT""",
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
    """CREATE TABLE benign_functions (
           repo_id INTEGER NOT NULL REFERENCES repos (id),
           path TEXT NOT NULL,
           first_line INTEGER NOT NULL,
           last_line INTEGER NOT NULL,
           name TEXT NOT NULL,
           oid TEXT NOT NULL,
           tree_sha TEXT NOT NULL,
           since_commit_id INTEGER NOT NULL REFERENCES commits (id),
           since_time_s INTEGER NOT NULL,
           n_commits INTEGER NOT NULL,
           n_changes INTEGER NOT NULL,
           is_cut INTEGER NOT NULL CHECK (is_cut IN (0, 1)),
           n_tokens INTEGER NOT NULL,
           encoding TEXT NOT NULL,
           text TEXT NOT NULL,
           split TEXT NOT NULL CHECK (split IN ('train', 'bench')),
           example_no INTEGER NOT NULL,
           PRIMARY KEY (repo_id, path, first_line)
       ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX benign_functions_since ON benign_functions (since_commit_id)",
    # A CHECK can only be changed with its table; views name the table and stay as they are.
    "PRAGMA legacy_alter_table = ON",
    """CREATE TABLE instructions_2 (
           commit_id INTEGER NOT NULL REFERENCES commits (id),
           task TEXT NOT NULL CHECK (task IN (
               'locate', 'locate_explain', 'infill', 'refine', 'calibrate', 'abstain', 'benign')),
           example_no INTEGER NOT NULL,
           split TEXT NOT NULL CHECK (split IN ('train', 'bench')),
           instruction TEXT NOT NULL,
           input TEXT NOT NULL,
           output TEXT NOT NULL,
           meta TEXT NOT NULL CHECK (json_valid(meta)),
           PRIMARY KEY (commit_id, task, example_no)
       ) STRICT, WITHOUT ROWID""",
    "INSERT INTO instructions_2 SELECT * FROM instructions",
    "DROP TABLE instructions",
    "ALTER TABLE instructions_2 RENAME TO instructions",
    "CREATE INDEX instructions_split ON instructions (split, task)",
    "PRAGMA legacy_alter_table = OFF",
)

_TO_3: tuple[str, ...] = (
    "ALTER TABLE benign_functions ADD COLUMN licence TEXT NOT NULL DEFAULT 'unknown'",
    """CREATE TABLE file_lifespans (
           repo_id INTEGER NOT NULL REFERENCES repos (id),
           tree_sha TEXT NOT NULL,
           path BLOB NOT NULL,
           oid TEXT NOT NULL,
           rules TEXT NOT NULL,
           functions TEXT NOT NULL CHECK (json_valid(functions)),
           PRIMARY KEY (repo_id, tree_sha, path)
       ) STRICT, WITHOUT ROWID""",
)

_TO_4: tuple[str, ...] = (
    # NOT NULL can only be taken away with the table; views name it and stay as they are.
    "PRAGMA legacy_alter_table = ON",
    """CREATE TABLE masked_functions_4 (
           commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
           masked_pre TEXT NOT NULL,
           n_fix_lines_missed INTEGER NOT NULL,
           request_hash TEXT
       ) STRICT""",
    """INSERT INTO masked_functions_4
       SELECT commit_id, masked_pre, n_fix_lines_missed, request_hash FROM masked_functions""",
    "DROP TABLE masked_functions",
    "ALTER TABLE masked_functions_4 RENAME TO masked_functions",
    "PRAGMA legacy_alter_table = OFF",
    "ALTER TABLE segments ADD COLUMN finding TEXT NOT NULL DEFAULT ''",
)

UPGRADES: dict[int, tuple[str, ...]] = {1: _TO_2, 2: _TO_3, 3: _TO_4}
