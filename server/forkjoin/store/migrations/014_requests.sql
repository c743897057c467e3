-- What agents ask and wait for, and which leads were told of it.

CREATE TABLE request (
  number       INTEGER PRIMARY KEY AUTOINCREMENT,
  agent        INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
  call         TEXT NOT NULL,                                            -- relay and request: a repeat finds it again
  kind         TEXT NOT NULL,
  text         TEXT NOT NULL,
  fallback     TEXT NOT NULL,
  asked        REAL NOT NULL,
  expires      REAL NOT NULL,
  closed       REAL,                                                     -- none while it is open
  said         TEXT NOT NULL DEFAULT '',                                 -- '' where it was withdrawn
  reason       TEXT NOT NULL DEFAULT '',
  answered_by  TEXT NOT NULL DEFAULT ''                                  -- '' where nobody has, until it expired
) STRICT;
CREATE UNIQUE INDEX request_of_call ON request (agent, call);
CREATE INDEX request_open ON request (expires) WHERE closed IS NULL;

CREATE TABLE request_told (
  project  INTEGER NOT NULL,
  lead     TEXT NOT NULL,
  request  INTEGER NOT NULL REFERENCES request ON DELETE CASCADE,
  PRIMARY KEY (project, lead, request)
) STRICT, WITHOUT ROWID;
