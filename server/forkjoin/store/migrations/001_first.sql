-- Projects, agents and what happened to them, landings, and calls that must not be done twice.

CREATE TABLE project (
  number      INTEGER PRIMARY KEY,
  common_dir  TEXT NOT NULL UNIQUE
) STRICT;

-- AUTOINCREMENT: a number is never used again, even when the newest agent's record is gone.
CREATE TABLE agent (
  number        INTEGER PRIMARY KEY AUTOINCREMENT,
  project       INTEGER NOT NULL REFERENCES project,
  lead          TEXT NOT NULL,
  name          TEXT NOT NULL,
  spec          TEXT NOT NULL,             -- JSON
  state         TEXT NOT NULL,
  merge         TEXT NOT NULL,
  priority      INTEGER NOT NULL,
  base          TEXT NOT NULL,
  branch        TEXT NOT NULL,
  worktree      TEXT NOT NULL,
  checkout      TEXT NOT NULL,             -- the user's, from where ignored files are brought; '' in a bare repository
  conversation  TEXT NOT NULL,
  environment   TEXT NOT NULL,             -- a digest: the environment itself is never on disk
  attempt       INTEGER NOT NULL DEFAULT 1,
  prepared      INTEGER NOT NULL DEFAULT 0, -- whether worktree and branch were made
  stop_asked    INTEGER NOT NULL DEFAULT 0,
  created       REAL NOT NULL,
  started       REAL,
  ended         REAL,
  removed       REAL,
  last_event    TEXT NOT NULL DEFAULT '',
  cost_usd      REAL
) STRICT;

-- A name is unique among a project's agents that are neither merged nor removed.
CREATE UNIQUE INDEX agent_name ON agent (project, name) WHERE removed IS NULL AND merge <> 'merged';
CREATE INDEX agent_live ON agent (state) WHERE state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost');
CREATE INDEX agent_project ON agent (project, number);

CREATE TABLE result (
  agent    INTEGER NOT NULL REFERENCES agent,
  attempt  INTEGER NOT NULL,
  result   TEXT NOT NULL,                  -- JSON
  PRIMARY KEY (agent, attempt)
) STRICT, WITHOUT ROWID;

-- How far an attempt's output has been read, and how its last turn ended: moved in one transaction with its events.
CREATE TABLE progress (
  agent     INTEGER NOT NULL REFERENCES agent,
  attempt   INTEGER NOT NULL,
  offset    INTEGER NOT NULL,
  turn_end  INTEGER,                       -- offset of the line that ended the last turn
  PRIMARY KEY (agent, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  agent    INTEGER NOT NULL REFERENCES agent,
  number   INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  at       REAL NOT NULL,
  kind     TEXT NOT NULL,
  text     TEXT NOT NULL,
  offset   INTEGER NOT NULL,
  PRIMARY KEY (agent, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE told (
  project  INTEGER NOT NULL,
  lead     TEXT NOT NULL,
  agent    INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  PRIMARY KEY (project, lead, agent, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE landing (
  number       INTEGER PRIMARY KEY,
  project      INTEGER NOT NULL REFERENCES project,
  lead         TEXT NOT NULL,
  agents       TEXT NOT NULL,              -- JSON: numbers, in the order asked for
  target       TEXT NOT NULL,
  verify       TEXT,
  dry_run      INTEGER NOT NULL,
  environment  TEXT NOT NULL,
  state        TEXT NOT NULL,
  move         TEXT,                       -- JSON, while the target is being moved
  answer       TEXT,                       -- JSON, once done
  created      REAL NOT NULL
) STRICT;

-- The first answer to a call that changes something, under the relay that sent it and the request's id.
CREATE TABLE call (
  relay    TEXT NOT NULL,
  request  TEXT NOT NULL,
  answer   TEXT NOT NULL,                  -- JSON
  at       REAL NOT NULL,
  PRIMARY KEY (relay, request)
) STRICT, WITHOUT ROWID;
