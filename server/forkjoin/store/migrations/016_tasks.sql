-- Calls whose answer is fetched later (MCP's tasks): what was called, and once that has been written, the answer.

CREATE TABLE deferred (
  id         TEXT NOT NULL PRIMARY KEY,                                  -- drawn, so that nobody can guess it
  project    INTEGER NOT NULL REFERENCES project,
  relay      TEXT NOT NULL,                                              -- as of a call
  request    TEXT NOT NULL,
  tool       TEXT NOT NULL,
  arguments  TEXT NOT NULL,                                              -- JSON
  agents     TEXT NOT NULL,                                              -- JSON: the numbers of those that it found it is for
  created    REAL NOT NULL,
  updated    REAL NOT NULL,
  cancelled  INTEGER NOT NULL DEFAULT 0,
  answer     TEXT,                                                       -- JSON
  UNIQUE (relay, request)
) STRICT, WITHOUT ROWID;
