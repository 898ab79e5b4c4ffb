-- trustmine: the whole layout of one database.
--
-- One SQLite file holds everything that is known about the commits of one or
-- more git repositories. `commits` is the queue and the spine: one narrow row
-- per commit, whose `status` is the last stage it has passed. What a stage
-- found out (its facts) lives in tables of their own, keyed by commit_id, each
-- written by exactly one stage in the same transaction that moves the status.
-- Texts that hold NUL or invalid UTF-8 are stored with the name of the codec
-- that gives back the original bytes (column `encoding`).
--
-- Units: *_s seconds since 1970-01-01 UTC, *_ms milliseconds, n_* counts.
-- Lines count from 1, first_line..last_line inclusive. `sha` and `oid` are full
-- lower-case hexadecimal git object names.

-- ---------------------------------------------------------------- repositories

-- A git repository whose history was ingested.
CREATE TABLE repos (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,   -- what --repo takes: owner/name of the remote, else the folder's name
    path          TEXT NOT NULL UNIQUE,   -- absolute path of the git directory on this machine
    url           TEXT,                   -- where it was cloned from, without user and password; NULL for a local path
    is_shallow    INTEGER NOT NULL DEFAULT 0 CHECK (is_shallow IN (0, 1)),
    ingested_at_s REAL NOT NULL           -- time of the last ingest
) STRICT;

-- The tips that the last ingest walked from: the next one walks only what is new.
CREATE TABLE refs (
    repo_id INTEGER NOT NULL REFERENCES repos (id),
    ref     TEXT NOT NULL,                -- as given: HEAD, a branch, a tag or a revision
    sha     TEXT NOT NULL,
    PRIMARY KEY (repo_id, ref)
) STRICT, WITHOUT ROWID;

-- The stages in their order; what `status` in commits may be.
CREATE TABLE stages (
    stage TEXT PRIMARY KEY,               -- 'ingested', 's0_1' ... 's4'
    place INTEGER NOT NULL UNIQUE,        -- 0 for 'ingested', then counting up
    kind  TEXT NOT NULL CHECK (kind IN ('git', 'cpu', 'parser', 'llm')),
    does  TEXT NOT NULL                   -- one line for people
) STRICT;
INSERT INTO stages (stage, place, kind, does) VALUES
    ('ingested', 0, 'git', 'the commit is known'),
    ('s0_1', 1, 'git', 'keyword match on the message, patch fetched'),
    ('s0_2', 2, 'cpu', 'size, token, single-file and extension filters'),
    ('s0_3', 3, 'llm', 'does this commit fix a vulnerability?'),
    ('s1_1', 4, 'parser', 'the function before and after, refinement filters'),
    ('s1_2', 5, 'llm', 'the risky block is found and masked'),
    ('s2_0', 6, 'parser', 'single masks kept, undefined elements collected'),
    ('s2_1', 7, 'llm', 'code elements and where each is defined'),
    ('s2_2', 8, 'cpu', 'elements validated, common names dropped'),
    ('s3_1', 9, 'llm', 'the vulnerable segments are located'),
    ('s3_2', 10, 'llm', 'root cause and impact of each segment'),
    ('s4', 11, 'cpu', 'training instructions');

-- ------------------------------------------------------------ the queue of rows

-- One row per commit. A stage claims open rows whose status is the stage before
-- it, and finishes them: status moves on, or the row is rejected or failed.
CREATE TABLE commits (
    id             INTEGER PRIMARY KEY,   -- in order of ingestion, parents before children
    repo_id        INTEGER NOT NULL REFERENCES repos (id),
    sha            TEXT NOT NULL CHECK (length(sha) = 40),
    parents        TEXT NOT NULL,         -- full SHAs separated by a space; '' for a root commit
    author_time_s  INTEGER NOT NULL,
    commit_time_s  INTEGER NOT NULL,
    is_boundary    INTEGER NOT NULL DEFAULT 0 CHECK (is_boundary IN (0, 1)), -- 1: parents cut off by a shallow clone
    status         TEXT NOT NULL DEFAULT 'ingested' REFERENCES stages (stage), -- the last stage passed
    outcome        TEXT NOT NULL DEFAULT 'open' CHECK (outcome IN ('open', 'rejected', 'failed', 'done')),
    reject_stage   TEXT REFERENCES stages (stage), -- the stage that rejected the row
    reject_reason  TEXT,                  -- one countable word: no_keyword, merge, not_c, ...
    attempts       INTEGER NOT NULL DEFAULT 0, -- failures of the next stage so far; 0 again when it passes
    crashes        INTEGER NOT NULL DEFAULT 0, -- workers that died with it in hand; above 0 it is claimed alone
    claim_owner    TEXT,                  -- worker that holds the row: host:pid:start:nonce
    claim_until_s  REAL,                  -- when its lease runs out
    priority       REAL,                  -- how promising it is, from priorities by triggers; NULL before s0_2
    UNIQUE (repo_id, sha),
    CHECK ((outcome = 'rejected') = (reject_stage IS NOT NULL)),
    CHECK ((outcome = 'rejected') = (reject_reason IS NOT NULL)),
    CHECK ((claim_owner IS NULL) = (claim_until_s IS NULL)),
    CHECK ((outcome = 'done') = (status = 's4'))
) STRICT;
CREATE INDEX commits_pending ON commits (status, id) WHERE outcome = 'open';
CREATE INDEX commits_best ON commits (status, priority DESC, id) WHERE outcome = 'open' AND priority IS NOT NULL;
CREATE INDEX commits_best_of_repo ON commits (repo_id, status, priority DESC, id)
    WHERE outcome = 'open' AND priority IS NOT NULL;
CREATE INDEX commits_claimed ON commits (claim_owner) WHERE claim_owner IS NOT NULL;
CREATE INDEX commits_funnel ON commits (repo_id, status, outcome, reject_stage, reject_reason);
CREATE INDEX commits_undecided ON commits (id) WHERE reject_reason = 'undecided';
CREATE INDEX commits_best_undecided ON commits (priority DESC, id) WHERE reject_reason = 'undecided';
CREATE INDEX commits_done ON commits (id) WHERE outcome = 'done';
CREATE INDEX commits_sha ON commits (sha);

-- The commit message, whole. Written by ingest.
CREATE TABLE messages (
    commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
    message   TEXT NOT NULL,
    encoding  TEXT NOT NULL               -- codec that turns `message` back into the commit's bytes
) STRICT;

-- Full-text search over messages; the text itself is not stored again. (Datasette
-- finds it by content="...", written in just this way.)
CREATE VIRTUAL TABLE messages_fts USING fts5 (message, content="messages", content_rowid="commit_id");
CREATE TRIGGER messages_ai AFTER INSERT ON messages BEGIN
    INSERT INTO messages_fts (rowid, message) VALUES (new.commit_id, new.message);
END;
CREATE TRIGGER messages_ad AFTER DELETE ON messages BEGIN
    INSERT INTO messages_fts (messages_fts, rowid, message) VALUES ('delete', old.commit_id, old.message);
END;
CREATE TRIGGER messages_au AFTER UPDATE ON messages BEGIN
    INSERT INTO messages_fts (messages_fts, rowid, message) VALUES ('delete', old.commit_id, old.message);
    INSERT INTO messages_fts (rowid, message) VALUES (new.commit_id, new.message);
END;

-- ------------------------------------------------------------------- provenance

-- A language model file that answered calls.
CREATE TABLE models (
    id           INTEGER PRIMARY KEY,
    sha256       TEXT NOT NULL UNIQUE,    -- of the whole GGUF file; behind an endpoint, of the model's name there
    name         TEXT NOT NULL,           -- general.name of the GGUF, else the file's name; behind an endpoint, as it says
    path         TEXT NOT NULL,           -- where it was last seen: the file, or the endpoint's address
    size_bytes   INTEGER NOT NULL,        -- 0 if an endpoint does not say, as n_params and n_ctx_train
    mtime_ns     INTEGER NOT NULL,        -- with path and size: whether to hash again; endpoint: when it was last opened
    architecture TEXT,
    n_params     INTEGER,
    n_ctx_train  INTEGER,
    engine       TEXT NOT NULL            -- what ran it: llama-cpp-python 0.3.36, or openai-compatible (an endpoint)
) STRICT;

-- What made a stage's results: its code version and every setting, prompt and
-- model that the results depend on. Same recipe, same input: same facts.
CREATE TABLE recipes (
    id            INTEGER PRIMARY KEY,
    stage         TEXT NOT NULL REFERENCES stages (stage),
    hash          TEXT NOT NULL UNIQUE,   -- sha256 of `content`
    content       TEXT NOT NULL CHECK (json_valid(content)), -- canonical JSON: version, settings, prompts, model, calibration
    model_id      INTEGER REFERENCES models (id),
    created_at_s  REAL NOT NULL
) STRICT;

-- Which recipe decided a commit at a stage (passed or rejected alike).
-- A row whose recipe is not the present one is stale.
CREATE TABLE steps (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    stage     TEXT NOT NULL REFERENCES stages (stage),
    recipe_id INTEGER NOT NULL REFERENCES recipes (id),
    PRIMARY KEY (commit_id, stage)
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_recipe ON steps (recipe_id);

-- Every call of a language model. Kept when a row is sent back: the same
-- request to the same model is answered from here instead of being run again.
CREATE TABLE llm_calls (
    commit_id      INTEGER NOT NULL REFERENCES commits (id),
    stage          TEXT NOT NULL REFERENCES stages (stage),
    request_hash   TEXT NOT NULL,         -- sha256 over rendered prompt, answer form, sampling, model file and engine
    task           TEXT NOT NULL,         -- what was asked: judge, mask, list_elements, ...
    prompt_name    TEXT NOT NULL,         -- file in prompts/, without .md
    prompt_hash    TEXT NOT NULL,         -- sha256 of that file
    rendered_hash  TEXT NOT NULL,         -- sha256 of the messages as filled in
    model_id       INTEGER NOT NULL REFERENCES models (id),
    sampling       TEXT NOT NULL CHECK (json_valid(sampling)), -- temperature, repeat_penalty, seed, max_tokens, n_ctx
    completion     TEXT NOT NULL,         -- raw, as the model gave it
    finish_reason  TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'label')), -- label: scored, no text generated
    label_logprobs TEXT CHECK (label_logprobs IS NULL OR json_valid(label_logprobs)), -- {"label": natural log}, summing to probability 1
    n_prompt       INTEGER NOT NULL,      -- tokens of the prompt
    n_cached       INTEGER NOT NULL,      -- of these, taken from the KV cache
    n_completion   INTEGER NOT NULL,      -- tokens generated
    duration_ms    REAL NOT NULL,         -- from its first token to its answer; calls beside it share that time
    created_at_s   REAL NOT NULL,
    PRIMARY KEY (commit_id, stage, request_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX llm_calls_request ON llm_calls (request_hash);

-- One row per time that a model was loaded: what it did, and how busy it was.
CREATE TABLE model_runs (
    id           INTEGER PRIMARY KEY,
    model_id     INTEGER NOT NULL REFERENCES models (id),
    worker       TEXT NOT NULL,           -- the process that holds it: host:pid:start:nonce, as in commits.claim_owner
    n_sequences  INTEGER NOT NULL,        -- questions that it works on at once
    started_at_s REAL NOT NULL,           -- when it was ready
    seen_at_s    REAL NOT NULL,           -- when this row was last written
    ended_at_s   REAL,                    -- NULL while it runs (or if it was killed)
    busy_s       REAL NOT NULL DEFAULT 0, -- seconds in which it worked
    n_calls      INTEGER NOT NULL DEFAULT 0, -- questions answered
    n_prompt     INTEGER NOT NULL DEFAULT 0, -- tokens of their prompts
    n_cached     INTEGER NOT NULL DEFAULT 0, -- of these, taken from the KV cache
    n_completion INTEGER NOT NULL DEFAULT 0  -- tokens generated
) STRICT;

-- How raw label log-probabilities of one model and prompt become a label.
-- score = log p(yes) - log p(no); p_fix = 1 / (1 + exp(-scale * (score - offset))).
CREATE TABLE calibrations (
    id               INTEGER PRIMARY KEY,
    hash             TEXT NOT NULL UNIQUE, -- sha256 of the numbers below, model and prompt
    model_id         INTEGER NOT NULL REFERENCES models (id),
    prompt_hash      TEXT NOT NULL,
    method           TEXT NOT NULL CHECK (method IN ('batch', 'known')), -- batch: Zhou et al. 2023; known: Platt
                                          -- scaling on known fixes (trustmine evaluate --fit)
    "offset"         REAL NOT NULL,
    scale            REAL NOT NULL,
    undecided_cutoff REAL NOT NULL,       -- undecided if log p(cannot decide) - log(p(yes) + p(no)) lies above
    n_rows           INTEGER NOT NULL,    -- rows it was estimated on
    created_at_s     REAL NOT NULL        -- made, or chosen again; of a model and prompt the newest is in force
) STRICT;

-- A failure of a row at a stage: kept until the row passes that stage.
CREATE TABLE failures (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    stage     TEXT NOT NULL REFERENCES stages (stage),
    attempt   INTEGER NOT NULL,           -- 1 for the first
    error     TEXT NOT NULL,              -- one line
    traceback TEXT NOT NULL,
    worker    TEXT NOT NULL,
    at_s      REAL NOT NULL,
    PRIMARY KEY (commit_id, stage, attempt)
) STRICT, WITHOUT ROWID;

-- One row per worker process and stage: rates, time left, who is alive.
CREATE TABLE workers (
    id            INTEGER PRIMARY KEY,
    worker        TEXT NOT NULL,          -- host:pid:start:nonce, as in commits.claim_owner
    stage         TEXT NOT NULL REFERENCES stages (stage),
    started_at_s  REAL NOT NULL,
    seen_at_s     REAL NOT NULL,          -- last finished batch
    ended_at_s    REAL,                   -- NULL while it runs (or if it was killed)
    n_advanced    INTEGER NOT NULL DEFAULT 0,
    n_rejected    INTEGER NOT NULL DEFAULT 0,
    n_failed      INTEGER NOT NULL DEFAULT 0,
    n_lost        INTEGER NOT NULL DEFAULT 0 -- results dropped because the lease had run out
) STRICT;
CREATE INDEX workers_stage ON workers (stage, seen_at_s);

-- ---------------------------------------------------------- labels from outside

-- A verdict from a list of known commits or an advisory; outranks the model's at s0_3 if the setting trusted_labels
-- names its quality.
CREATE TABLE labels (
    commit_id  INTEGER NOT NULL REFERENCES commits (id),
    source     TEXT NOT NULL,             -- name of the list; of an advisory its database: oss-fuzz, ghsa, cve, ...;
                                          -- 'message': the identifier stands in the commit's message
    identifier TEXT NOT NULL DEFAULT '',  -- CVE, else GHSA, else another id; '' where the list gives none
    label      TEXT NOT NULL CHECK (label IN ('yes', 'no')),
    cwe        TEXT,                      -- 'CWE-787'; of several a list's first, an advisory's most specific
    labelled_at_s REAL NOT NULL,
    other_cwes TEXT NOT NULL DEFAULT '',  -- further ones, separated by a space
    severity   TEXT,                      -- as given: a CVSS vector, a word
    quality    TEXT NOT NULL DEFAULT 'list' CHECK (quality IN ('list', 'advisory', 'bisected', 'bisected_range', 'message')),
                                          -- who says that it is this commit: a list; an advisory; OSS-Fuzz by bisection, to
                                          -- this commit or to a range that ends with it; its own message alone
    introduced_by TEXT NOT NULL DEFAULT '', -- SHAs of the commits that brought the vulnerability in, separated by a space
    aliases    TEXT NOT NULL DEFAULT '',  -- other identifiers of the same vulnerability, separated by a space
    PRIMARY KEY (commit_id, source, identifier)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------ facts: s0_1

-- Why the message let the commit in. JSON lists, each in the order of its setting.
CREATE TABLE keyword_matches (
    commit_id   INTEGER PRIMARY KEY REFERENCES commits (id),
    keywords    TEXT NOT NULL CHECK (json_valid(keywords)),
    crash_words TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(crash_words)), -- looked for only if they let commits in
    rules       TEXT NOT NULL DEFAULT '["keywords"]' CHECK (json_valid(rules)) -- those of the setting `admit` that applied:
                                          -- keywords, identifiers, crash_words
) STRICT;

-- Identifiers of vulnerabilities and of reports written in the message.
CREATE TABLE identifiers (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    kind      TEXT NOT NULL CHECK (kind IN ('CVE', 'GHSA', 'CWE', 'OSV', 'OSS-Fuzz', 'report', 'issue')),
    value     TEXT NOT NULL,              -- 'CVE-2023-38545' (GHSA's last groups in lower case); of OSS-Fuzz the number; of
                                          -- reports and issues '#12' or the address without https://
    PRIMARY KEY (commit_id, kind, value)
) STRICT, WITHOUT ROWID;

-- The patch against the first parent, exactly as `git show --format= SHA` prints it.
CREATE TABLE diffs (
    commit_id  INTEGER PRIMARY KEY REFERENCES commits (id),
    patch      TEXT,                      -- NULL if it has more characters than the limit of s0_2
    encoding   TEXT NOT NULL,             -- codec that turns `patch` back into bytes
    n_chars    INTEGER NOT NULL           -- of the whole patch, kept or not
) STRICT;

-- The files that the patch touches, in its order.
CREATE TABLE diff_files (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    file_no   INTEGER NOT NULL,           -- from 1
    change    TEXT NOT NULL CHECK (change IN ('added', 'deleted', 'modified', 'renamed', 'copied', 'typechange')),
    old_path  TEXT NOT NULL,
    new_path  TEXT NOT NULL,              -- the same as old_path unless renamed
    old_oid   TEXT NOT NULL,              -- blob before; all zeros if added
    new_oid   TEXT NOT NULL,              -- blob after; all zeros if deleted
    is_binary INTEGER NOT NULL CHECK (is_binary IN (0, 1)),
    is_submodule INTEGER NOT NULL CHECK (is_submodule IN (0, 1)),
    n_hunks   INTEGER NOT NULL,
    n_added   INTEGER NOT NULL,           -- lines
    n_deleted INTEGER NOT NULL,
    PRIMARY KEY (commit_id, file_no)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------ facts: s0_2

-- Size of the commit text (message, newline, patch of the counted files) in tokens of cl100k_base.
CREATE TABLE commit_sizes (
    commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
    n_tokens  INTEGER NOT NULL            -- exact; only rows below the limit are stored
) STRICT;

-- How promising a row that passed s0_2 is, before any model has read it: points, whose sum is the order in which later
-- stages take rows. What gives how many points is written in trustmine/priority.py; the lists of words are settings.
CREATE TABLE priorities (
    commit_id   INTEGER PRIMARY KEY REFERENCES commits (id),
    priority    REAL NOT NULL,            -- the sum of the next five; the higher, the sooner
    identifiers REAL NOT NULL,            -- a CVE, GHSA, CWE or a report of a bug hunter or fuzzer is named
    vocabulary  REAL NOT NULL,            -- words of the message that name a weakness, a crash, a check, or other work
    shape       REAL NOT NULL,            -- what the patch adds: guards, range and null checks, early exits; memory calls
    size        REAL NOT NULL,            -- changed lines of code: large changes come later
    place       REAL NOT NULL,            -- below zero in tests, examples and documentation, and in headers alone
    found       TEXT NOT NULL CHECK (json_valid(found)), -- JSON list: the identifiers, words and changes behind it
    CHECK (priority = identifiers + vocabulary + shape + size + place)
) STRICT;
CREATE TRIGGER priorities_ai AFTER INSERT ON priorities BEGIN
    UPDATE commits SET priority = new.priority WHERE id = new.commit_id;
END;
CREATE TRIGGER priorities_ad AFTER DELETE ON priorities BEGIN
    UPDATE commits SET priority = NULL WHERE id = old.commit_id;
END;
CREATE TRIGGER priorities_au AFTER UPDATE ON priorities BEGIN
    UPDATE commits SET priority = NULL WHERE id = old.commit_id AND id <> new.commit_id;
    UPDATE commits SET priority = new.priority WHERE id = new.commit_id;
END;

-- ------------------------------------------------------------------ facts: s0_3

-- Does this commit fix a vulnerability?
CREATE TABLE verdicts (
    commit_id    INTEGER PRIMARY KEY REFERENCES commits (id),
    label        TEXT NOT NULL CHECK (label IN ('yes', 'no', 'undecided')),
    source       TEXT NOT NULL,           -- 'model', or the list of a label from outside
    p_yes        REAL,                    -- raw probabilities of the three labels, the mean of both questions if two were
    p_no         REAL,                    -- asked (docs/DESIGN.md, 6); NULL for a label from outside
    p_undecided  REAL,
    p_fix        REAL,                    -- calibrated probability of yes against no
    calibration_id INTEGER REFERENCES calibrations (id), -- NULL: raw probabilities decided
    rationale    TEXT,                    -- the model's reason, when it was asked for
    request_hash TEXT                     -- the call with the question itself, in llm_calls
) STRICT;

-- ------------------------------------------------------------------ facts: s1_1

-- Whole files before the fix, once per git blob. The file after the fix is this plus the patch.
CREATE TABLE pre_images (
    oid        TEXT PRIMARY KEY,          -- git blob
    size_bytes INTEGER NOT NULL,
    content    BLOB NOT NULL              -- the bytes, zlib-compressed
) STRICT, WITHOUT ROWID;

-- The one function that the fix changes, before and after.
CREATE TABLE functions (
    commit_id       INTEGER PRIMARY KEY REFERENCES commits (id),
    name            TEXT NOT NULL,        -- as written, qualified in C++: Cls::run
    path            TEXT NOT NULL,        -- file after the fix
    old_path        TEXT NOT NULL,        -- file before
    split           TEXT NOT NULL CHECK (split IN ('train', 'bench')),
    pre_oid         TEXT NOT NULL,        -- whole file before: pre_images.oid
    post_oid        TEXT NOT NULL,        -- whole file after, checked: git hash of pre-image + patch
    encoding        TEXT NOT NULL,        -- codec of the texts below
    hunk            TEXT NOT NULL,        -- those that touch the function, each from its @@ line on
    pre_first_line  INTEGER NOT NULL,     -- lines of the file before
    pre_last_line   INTEGER NOT NULL,
    post_first_line INTEGER NOT NULL,     -- lines of the file after
    post_last_line  INTEGER NOT NULL,
    pre_text        TEXT NOT NULL,        -- the vulnerable function, whole lines
    post_text       TEXT NOT NULL,        -- the fixed function, whole lines
    deleted_lines   TEXT NOT NULL CHECK (json_valid(deleted_lines)), -- JSON list, lines of pre_text from 1
    added_lines     TEXT NOT NULL CHECK (json_valid(added_lines)),   -- JSON list, lines of post_text from 1
    fix_lines       TEXT NOT NULL CHECK (json_valid(fix_lines)), -- JSON list, lines of pre_text that the fix is about: those it
                                          -- deletes, and the statement line at each place where it only adds (settings
                                          -- fix_scope, only_additions)
    n_tokens        INTEGER NOT NULL      -- of pre_text, cl100k_base
) STRICT;

-- Under which licence the function's file stood when it was fixed.
CREATE TABLE licences (
    commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
    spdx      TEXT NOT NULL,              -- SPDX expression; 'unknown' if nothing says so, or nothing that can be understood
    source    TEXT CHECK (source IN ('file', 'repository')), -- the file's own SPDX-License-Identifier, or the repository's
                                          -- licence file or README; NULL: none says anything
    path      TEXT                        -- where it stands; of several licence files the first
) STRICT;

-- ------------------------------------------------------------------ facts: s1_2

-- The risky blocks, named by the model or by the fix, replaced by <MASK_1>, <MASK_2>, ...
CREATE TABLE masks (
    commit_id   INTEGER NOT NULL REFERENCES commits (id),
    mask_no     INTEGER NOT NULL,         -- from 1, in the order of the text
    first_line  INTEGER NOT NULL,         -- lines of functions.pre_text
    last_line   INTEGER NOT NULL,
    removed     TEXT NOT NULL,            -- the masked code, whole lines
    n_fix_lines INTEGER NOT NULL,         -- of its lines, how many the fix is about (functions.fix_lines)
    PRIMARY KEY (commit_id, mask_no)
) STRICT, WITHOUT ROWID;

-- The function with its masks in place.
CREATE TABLE masked_functions (
    commit_id    INTEGER PRIMARY KEY REFERENCES commits (id),
    masked_pre   TEXT NOT NULL,           -- functions.pre_text with masks, all else byte for byte
    n_fix_lines_missed INTEGER NOT NULL,  -- of functions.fix_lines, how many no mask covers
    request_hash TEXT                     -- the call in llm_calls; NULL where the fix says what is masked
) STRICT;

-- ------------------------------------------------------------------ facts: s2_0

-- The post-image with the region of the single mask masked too.
CREATE TABLE merged_masks (
    commit_id       INTEGER PRIMARY KEY REFERENCES commits (id),
    masked_post     TEXT NOT NULL,        -- functions.post_text with <MASK_1>
    fixed           TEXT NOT NULL,        -- what stands there after the fix; '' if nothing does
    post_first_line INTEGER NOT NULL,     -- lines of functions.post_text
    post_last_line  INTEGER NOT NULL      -- post_first_line - 1 if nothing is left
) STRICT;

-- Names used at the mask that the function itself does not define.
CREATE TABLE undefined_elements (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    name      TEXT NOT NULL,
    kind      TEXT NOT NULL,              -- as the parser sees its use: function, type, member, macro, variable
    place     TEXT NOT NULL CHECK (place IN ('masked', 'fixed', 'adjoining')), -- first of these that uses it
    PRIMARY KEY (commit_id, name)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------ facts: s2_1

-- What a file of a parent commit's tree defines, declares and includes, once per git blob: definitions
-- are searched without reading or parsing a file twice. Kept when rows go back. Symbols that another
-- version of the parser found are left where they are; nothing reads them.
CREATE TABLE blob_symbols (
    oid       TEXT NOT NULL,              -- git blob
    grammar   TEXT NOT NULL CHECK (grammar IN ('c', 'cpp', 'h')), -- by the file's name; h: C unless C++ fits better
    parser    TEXT NOT NULL,              -- version of the symbol finder and of the two grammars
    n_symbols INTEGER NOT NULL,
    loss      TEXT CHECK (loss IN ('too_large', 'too_complex')), -- why there are fewer than there may be; NULL: all
    content   BLOB NOT NULL,              -- zlib of JSON: [[path of an #include, ...],
                                          -- [[name, kind, first line, lines after it, 1 if only declared], ...]]
    PRIMARY KEY (oid, grammar, parser)
) STRICT, WITHOUT ROWID;

-- All code elements of the two snippets, each with its definition or why there is none.
CREATE TABLE elements (
    commit_id      INTEGER NOT NULL REFERENCES commits (id),
    name           TEXT NOT NULL,
    kind           TEXT NOT NULL,         -- function, variable, pointer variable, member, struct, union, enum, typedef, macro, constant
    found_by       TEXT NOT NULL CHECK (found_by IN ('parser', 'model', 'both')),
    in_pre         INTEGER NOT NULL CHECK (in_pre IN (0, 1)),
    in_post        INTEGER NOT NULL CHECK (in_post IN (0, 1)),
    n_candidates   INTEGER NOT NULL,      -- definitions that the parser found
    chosen_by      TEXT CHECK (chosen_by IN ('parser', 'model')), -- NULL: no definition
    def_path       TEXT,                  -- in the tree of the parent commit
    def_first_line INTEGER,
    def_last_line  INTEGER,
    definition     TEXT,                  -- whole lines
    missing        TEXT,                  -- why there is no definition: not_found; none_fits (the model took no candidate);
                                          -- local (declared by the fixed function alone)
    PRIMARY KEY (commit_id, name),
    CHECK ((definition IS NULL) = (missing IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- How the two lists of elements compare; where no model was asked its numbers are 0.
CREATE TABLE element_counts (
    commit_id      INTEGER PRIMARY KEY REFERENCES commits (id),
    n_parser       INTEGER NOT NULL,
    n_model        INTEGER NOT NULL,      -- names that occur in the code: n_parser + n_model - n_both elements in all
    n_both         INTEGER NOT NULL,
    n_hallucinated INTEGER NOT NULL       -- names the model gave that do not occur in the code; never kept
) STRICT;

-- ------------------------------------------------------------------ facts: s2_2

-- Every element kept for the sample's context, or the reason it was dropped.
CREATE TABLE context_items (
    commit_id INTEGER NOT NULL REFERENCES commits (id),
    name      TEXT NOT NULL,
    item_no   INTEGER NOT NULL,           -- order in the context
    is_kept   INTEGER NOT NULL CHECK (is_kept IN (0, 1)),
    reason    TEXT,                       -- why dropped: common_call, basic_type, error_code, short_name, no_definition, over_budget
    n_chars   INTEGER NOT NULL,           -- of elements.definition, how many are shown (cut at a line end); 0 and kept:
                                          -- it lies in the function itself or in what is shown for another element
    n_tokens  INTEGER NOT NULL,           -- of that part, cl100k_base
    PRIMARY KEY (commit_id, name),
    CHECK ((is_kept = 0) = (reason IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- ----------------------------------------------- of `trustmine propose`, after s2_2

-- What a model wrote into the gap of the fixed function, asked as for the task infill: candidate patches for s4.
CREATE TABLE candidates (
    commit_id    INTEGER NOT NULL REFERENCES commits (id),
    request_hash TEXT NOT NULL,           -- the call in llm_calls
    model_id     INTEGER NOT NULL REFERENCES models (id),
    prompt_hash  TEXT NOT NULL,           -- sha256 of prompts/propose.md as it was asked with
    code         TEXT NOT NULL,           -- what the model puts in place of <MASK_1>, whole lines; '' for nothing
    verdict      TEXT NOT NULL CHECK (verdict IN ('fix', 'vulnerable', 'other')), -- by its tokens: what the fix put there
                                          -- (merged_masks.fixed), what it removed (masks.removed), or something else
    PRIMARY KEY (commit_id, request_hash)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------ facts: s3_1

-- Vulnerable blocks that the model pointed out without seeing the fix.
CREATE TABLE segments (
    commit_id    INTEGER NOT NULL REFERENCES commits (id),
    segment_no   INTEGER NOT NULL,        -- from 1, in the order of the text
    first_line   INTEGER NOT NULL,        -- lines of functions.pre_text
    last_line    INTEGER NOT NULL,
    snippet      TEXT NOT NULL,           -- these lines, exact
    n_fix_lines  INTEGER NOT NULL,        -- of its lines, how many the fix is about (functions.fix_lines)
    request_hash TEXT NOT NULL,           -- the call in llm_calls
    finding      TEXT NOT NULL DEFAULT '', -- what the model says is wrong, before it names lines; the same for all of a row
    PRIMARY KEY (commit_id, segment_no)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------ facts: s3_2

-- Root cause and impact of each segment.
CREATE TABLE explanations (
    id           INTEGER PRIMARY KEY,     -- commit_id * 100 + segment_no (for full-text search)
    commit_id    INTEGER NOT NULL REFERENCES commits (id),
    segment_no   INTEGER NOT NULL,
    root_cause   TEXT NOT NULL,
    impact       TEXT NOT NULL,
    cwe          TEXT,                    -- 'CWE-787', where the model names one
    n_asked      INTEGER NOT NULL,        -- 2 if the first answer was sent back
    request_hash TEXT NOT NULL,           -- the call in llm_calls
    UNIQUE (commit_id, segment_no)
) STRICT;
CREATE VIRTUAL TABLE explanations_fts USING fts5 (root_cause, impact, content="explanations", content_rowid="id");
CREATE TRIGGER explanations_ai AFTER INSERT ON explanations BEGIN
    INSERT INTO explanations_fts (rowid, root_cause, impact) VALUES (new.id, new.root_cause, new.impact);
END;
CREATE TRIGGER explanations_ad AFTER DELETE ON explanations BEGIN
    INSERT INTO explanations_fts (explanations_fts, rowid, root_cause, impact)
    VALUES ('delete', old.id, old.root_cause, old.impact);
END;
CREATE TRIGGER explanations_au AFTER UPDATE ON explanations BEGIN
    INSERT INTO explanations_fts (explanations_fts, rowid, root_cause, impact)
    VALUES ('delete', old.id, old.root_cause, old.impact);
    INSERT INTO explanations_fts (rowid, root_cause, impact) VALUES (new.id, new.root_cause, new.impact);
END;

-- -------------------------------------------------------------------- facts: s4

-- Training instructions in neutral form; export writes the formats.
CREATE TABLE instructions (
    commit_id   INTEGER NOT NULL REFERENCES commits (id),
    task        TEXT NOT NULL CHECK (task IN (
                    'locate', 'locate_explain', 'infill', 'refine', 'calibrate', 'abstain',
                    'benign')),           -- asked like locate, of functions in benign_functions; not of s4
    example_no  INTEGER NOT NULL,         -- from 1 within the task
    split       TEXT NOT NULL CHECK (split IN ('train', 'bench')),
    instruction TEXT NOT NULL,            -- what to do
    input       TEXT NOT NULL,            -- what is given
    output      TEXT NOT NULL,            -- what the model shall answer
    meta        TEXT NOT NULL CHECK (json_valid(meta)), -- facts behind the answer: spans, confidence, reason, ...
    PRIMARY KEY (commit_id, task, example_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX instructions_split ON instructions (split, task);

-- -------------------------------------------------------------- `trustmine benign`

-- Functions in which no vulnerability is known: those of a repository's tree that have lived longest as they are, and
-- that no known fix has touched.
CREATE TABLE benign_functions (
    repo_id         INTEGER NOT NULL REFERENCES repos (id),
    path            TEXT NOT NULL,        -- file in the tree of tree_sha
    first_line      INTEGER NOT NULL,     -- lines of that file
    last_line       INTEGER NOT NULL,
    name            TEXT NOT NULL,        -- as written, qualified in C++
    oid             TEXT NOT NULL,        -- git blob of the file
    tree_sha        TEXT NOT NULL,        -- the commit whose tree was looked at: the tip that was ingested
    since_commit_id INTEGER NOT NULL REFERENCES commits (id), -- the commit that made it what it is, comments and white
                                          -- space aside
    since_time_s    INTEGER NOT NULL,     -- when that was, by the commit's own clock
    n_commits       INTEGER NOT NULL,     -- of the first-parent history since then: its lifespan
    n_changes       INTEGER NOT NULL,     -- of these, how many changed its file
    is_cut          INTEGER NOT NULL CHECK (is_cut IN (0, 1)), -- 1: a shallow clone ends there, so it may be older
    n_tokens        INTEGER NOT NULL,     -- of `text`, cl100k_base
    encoding        TEXT NOT NULL,        -- codec of `text`
    text            TEXT NOT NULL,        -- the function, whole lines
    split           TEXT NOT NULL CHECK (split IN ('train', 'bench')), -- by since_time_s: bench from the cutoff on
    example_no      INTEGER NOT NULL,     -- of its example: instructions (since_commit_id, 'benign', example_no)
    licence         TEXT NOT NULL DEFAULT 'unknown', -- SPDX expression: the file's, or the repository's, in that tree
    PRIMARY KEY (repo_id, path, first_line)
) STRICT, WITHOUT ROWID;
CREATE INDEX benign_functions_since ON benign_functions (since_commit_id);

-- Since when the functions of a tree are as they are, one row per file: what `trustmine benign` has worked out so far, and
-- what a run for a newer tip starts from. Rows of earlier tips go when a run is through.
CREATE TABLE file_lifespans (
    repo_id   INTEGER NOT NULL REFERENCES repos (id),
    tree_sha  TEXT NOT NULL,              -- the commit whose tree was looked at
    path      BLOB NOT NULL,              -- as git has it
    oid       TEXT NOT NULL,              -- git blob of the file
    rules     TEXT NOT NULL,              -- version of the rules and of the parser, and SHA of the history's oldest commit
    functions TEXT NOT NULL CHECK (json_valid(functions)), -- a list, in their order: name, first_line, last_line,
                                          -- body (hash without comments and white space), n_tokens (cl100k_base), since
                                          -- (SHA of the commit that made it what it is), n_changes (commits since then
                                          -- that changed the file), touched (SHA of those that changed its text)
    PRIMARY KEY (repo_id, tree_sha, path)
) STRICT, WITHOUT ROWID;

-- ------------------------------------------------------------------------ views

-- For people who look into the file, with SQL or datasette; no stage reads them.
-- Counts are made in one pass over the index commits_funnel, in its order.

-- Rows that wait for a stage, per repository; stages nothing waits for are left out.
CREATE VIEW pending_per_stage (
    stage,                                -- the stage they wait for
    repo,
    pending,                              -- open rows that no worker holds
    claimed                               -- open rows held by a worker whose lease has not run out
) AS
WITH waiting (repo_id, status, n, n_held) AS (
    SELECT repo_id, status, count(*), 0 FROM commits WHERE outcome = 'open' GROUP BY repo_id, status
    UNION ALL
    SELECT repo_id, status, 0, count(*) FROM commits INDEXED BY commits_claimed -- few rows, whatever is pending
    WHERE claim_owner IS NOT NULL AND outcome = 'open' AND claim_until_s > CAST(strftime('%s', 'now') AS INTEGER)
    GROUP BY repo_id, status
)
SELECT next.stage, repos.name, sum(n) - sum(n_held), sum(n_held)
FROM waiting
JOIN stages AS passed ON passed.stage = waiting.status
JOIN stages AS next ON next.place = passed.place + 1
JOIN repos ON repos.id = waiting.repo_id
GROUP BY next.place, repos.name
ORDER BY next.place, repos.name;

-- Where the commits are: one row per stage, in the order of the stages.
CREATE VIEW funnel (
    stage,
    pending,                              -- open rows that wait for this stage
    claimed,                              -- open rows that a worker holds for this stage
    passed,                               -- rows that have passed this stage, wherever they are now
    failed,                               -- rows set aside after too many failures of this stage
    rejected,                             -- rows that this stage rejected
    kind,
    does                                  -- one line for people
) AS
WITH counted AS MATERIALIZED ( -- by repo_id first: the order of commits_funnel, so nothing is sorted
    SELECT place, outcome, reject_stage, n
    FROM (
        SELECT status, outcome, reject_stage, count(*) AS n
        FROM commits GROUP BY repo_id, status, outcome, reject_stage
    ) JOIN stages ON stages.stage = status
), waiting AS MATERIALIZED (
    SELECT stage, sum(pending) AS pending, sum(claimed) AS claimed FROM pending_per_stage GROUP BY stage
)
SELECT
    stages.stage,
    coalesce(waiting.pending, 0),
    coalesce(waiting.claimed, 0),
    coalesce(sum(n) FILTER (WHERE counted.place >= stages.place), 0),
    coalesce(sum(n) FILTER (WHERE outcome = 'failed' AND counted.place = stages.place - 1), 0),
    coalesce(sum(n) FILTER (WHERE reject_stage = stages.stage), 0),
    stages.kind,
    stages.does
FROM stages LEFT JOIN counted LEFT JOIN waiting ON waiting.stage = stages.stage
GROUP BY stages.place
ORDER BY stages.place;

-- What was rejected, and why.
CREATE VIEW rejects_by_reason (
    stage,                                -- the stage that rejected
    reason,
    n                                     -- commits
) AS
SELECT reject_stage, reject_reason, sum(n)
FROM (
    SELECT reject_stage, reject_reason, count(*) AS n FROM commits
    WHERE outcome = 'rejected' GROUP BY repo_id, status, reject_stage, reject_reason
) JOIN stages ON stages.stage = reject_stage
GROUP BY place, reject_reason
ORDER BY place, sum(n) DESC, reject_reason;

-- Commits as `git log --oneline` would show them, with where they are; newest ingested first.
CREATE VIEW commit_log (
    commit_id,
    repo,
    sha,
    date,                                 -- of the commit, UTC
    subject,                              -- first line of the message
    status,                               -- the last stage passed
    outcome,
    reject_stage,
    reject_reason
) AS
SELECT
    c.id, r.name, c.sha, datetime(c.commit_time_s, 'unixepoch'),
    rtrim(substr(m.message, 1, instr(m.message || char(10), char(10)) - 1), char(13)),
    c.status, c.outcome, c.reject_stage, c.reject_reason
FROM commits AS c
LEFT JOIN repos AS r ON r.id = c.repo_id
LEFT JOIN messages AS m ON m.commit_id = c.id
ORDER BY c.id DESC;

-- What the model would be asked about next: rows that wait for s0_3, most promising first, with what speaks for them.
CREATE VIEW most_promising (
    commit_id,
    repo,
    sha,
    date,                                 -- of the commit, UTC
    subject,                              -- first line of the message
    priority,                             -- the sum of the next five
    identifiers,
    vocabulary,
    shape,
    size,
    place,
    found                                 -- identifiers, words and changes behind it, JSON list
) AS
SELECT
    c.id, r.name, c.sha, datetime(c.commit_time_s, 'unixepoch'),
    rtrim(substr(m.message, 1, instr(m.message || char(10), char(10)) - 1), char(13)),
    c.priority, p.identifiers, p.vocabulary, p.shape, p.size, p.place, p.found
FROM commits AS c INDEXED BY commits_best
LEFT JOIN repos AS r ON r.id = c.repo_id
LEFT JOIN messages AS m ON m.commit_id = c.id
LEFT JOIN priorities AS p ON p.commit_id = c.id
WHERE c.outcome = 'open' AND c.status = 's0_2' AND c.priority IS NOT NULL
ORDER BY c.priority DESC, c.id;

-- What a commit is known under: identifiers in its message, and those that lists
-- of known fixes give it (a list that says it is no fix gives none).
CREATE VIEW commit_identifiers (
    commit_id,
    repo,
    sha,
    kind,                                 -- CVE, GHSA, CWE or other
    value,
    source                                -- 'message', or the name of the list
) AS
SELECT c.id, r.name, c.sha, known.kind, known.value, known.source
FROM (
    SELECT commit_id, kind, value, 'message' AS source FROM identifiers
    UNION ALL
    SELECT commit_id,
           CASE WHEN identifier LIKE 'CVE-%' THEN 'CVE' WHEN identifier LIKE 'GHSA-%' THEN 'GHSA' ELSE 'other' END,
           identifier, source
    FROM labels WHERE label = 'yes' AND identifier <> ''
    UNION -- one list may give the same CWE under several identifiers
    SELECT commit_id, 'CWE', cwe, source FROM labels WHERE label = 'yes' AND cwe IS NOT NULL
) AS known
LEFT JOIN commits AS c ON c.id = known.commit_id
LEFT JOIN repos AS r ON r.id = c.repo_id;

-- One row per commit that has come through all stages: what a training sample is made of.
CREATE VIEW training_samples (
    commit_id,
    repo,
    sha,
    date,                                 -- of the commit, UTC
    subject,                              -- first line of the message
    split,                                -- train or bench
    cve,                                  -- CVE identifiers, from the message and from lists
    cwe,                                  -- CWE identifiers, likewise
    cwe_by_model,                         -- CWE identifiers that the model named in its explanations
    function,
    path,                                 -- file after the fix
    pre_text,                             -- the vulnerable function
    post_text,                            -- the fixed function
    masked_pre,                           -- the vulnerable function with <MASK_1>
    masked_block,                         -- the code that <MASK_1> stands for
    fixed_block,                          -- what stands there after the fix
    root_cause,                           -- of each segment, in their order, one a paragraph
    impact,                               -- likewise
    p_fix,                                -- calibrated probability that the commit is a fix; NULL for a label from outside
    label_source,                         -- 'model', or the list that says it is a fix
    n_segments,
    n_context,                            -- definitions kept for the context
    n_instructions
) AS
SELECT
    c.id, r.name, c.sha, datetime(c.commit_time_s, 'unixepoch'),
    rtrim(substr(m.message, 1, instr(m.message || char(10), char(10)) - 1), char(13)),
    f.split,
    (SELECT group_concat(value, ' ') FROM (
        SELECT value FROM identifiers WHERE commit_id = c.id AND kind = 'CVE'
        UNION SELECT identifier FROM labels WHERE commit_id = c.id AND label = 'yes' AND identifier LIKE 'CVE-%')),
    (SELECT group_concat(value, ' ') FROM (
        SELECT value FROM identifiers WHERE commit_id = c.id AND kind = 'CWE'
        UNION SELECT cwe FROM labels WHERE commit_id = c.id AND label = 'yes' AND cwe IS NOT NULL)),
    (SELECT group_concat(cwe, ' ') FROM (
        SELECT DISTINCT cwe FROM explanations WHERE commit_id = c.id AND cwe IS NOT NULL ORDER BY cwe)),
    f.name, f.path, f.pre_text, f.post_text, mf.masked_pre, mask.removed, mm.fixed,
    (SELECT group_concat(root_cause, char(10, 10)) FROM (
        SELECT root_cause FROM explanations WHERE commit_id = c.id ORDER BY segment_no)),
    (SELECT group_concat(impact, char(10, 10)) FROM (
        SELECT impact FROM explanations WHERE commit_id = c.id ORDER BY segment_no)),
    v.p_fix, v.source,
    (SELECT count(*) FROM segments WHERE commit_id = c.id),
    (SELECT count(*) FROM context_items WHERE commit_id = c.id AND is_kept = 1),
    (SELECT count(*) FROM instructions WHERE commit_id = c.id)
FROM commits AS c
LEFT JOIN repos AS r ON r.id = c.repo_id
LEFT JOIN messages AS m ON m.commit_id = c.id
LEFT JOIN verdicts AS v ON v.commit_id = c.id
LEFT JOIN functions AS f ON f.commit_id = c.id
LEFT JOIN masked_functions AS mf ON mf.commit_id = c.id
LEFT JOIN masks AS mask ON mask.commit_id = c.id AND mask.mask_no = 1
LEFT JOIN merged_masks AS mm ON mm.commit_id = c.id
WHERE c.outcome = 'done'
ORDER BY c.id DESC;

-- Calls of a language model with names instead of keys.
CREATE VIEW llm_calls_readable (
    commit_id,
    repo,
    sha,
    stage,
    task,                                 -- what was asked
    model,
    completion,                           -- raw, as the model gave it
    finish_reason,
    label_logprobs,                       -- {"label": natural log}
    n_prompt,                             -- tokens of the prompt
    n_cached,                             -- of these, taken from the KV cache
    n_completion,                         -- tokens generated
    duration_ms,
    tokens_per_s,                         -- tokens worked on: prompt without cached ones, and generated
    at,                                   -- UTC
    prompt_name,
    prompt_hash,
    request_hash
) AS
SELECT
    l.commit_id, r.name, c.sha, l.stage, l.task, m.name, l.completion, l.finish_reason, l.label_logprobs,
    l.n_prompt, l.n_cached, l.n_completion, l.duration_ms,
    round((l.n_prompt - l.n_cached + l.n_completion) * 1000.0 / nullif(l.duration_ms, 0), 1),
    datetime(l.created_at_s, 'unixepoch'), l.prompt_name, l.prompt_hash, l.request_hash
FROM llm_calls AS l
LEFT JOIN commits AS c ON c.id = l.commit_id
LEFT JOIN repos AS r ON r.id = c.repo_id
LEFT JOIN models AS m ON m.id = l.model_id;

PRAGMA application_id = 0x54524D4E; -- 'TRMN'
PRAGMA user_version = 4;
