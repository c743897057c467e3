-- Scratch worktrees, in which landings run verify: one for each target, which stays between landings.

CREATE TABLE scratch (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,
  project    INTEGER NOT NULL REFERENCES project,
  target     TEXT NOT NULL,
  recipe     TEXT NOT NULL,                                             -- JSON; it was made ready by this
  checkout   TEXT NOT NULL,                                             -- and shares with this one
  port_base  INTEGER NOT NULL,                                          -- 0: none
  used       REAL NOT NULL,                                             -- when a landing has used it last
  retired    INTEGER NOT NULL DEFAULT 0                                 -- no landing uses it any more
) STRICT;

-- What verify has said of commits, as long as their landing is not done.
CREATE TABLE verdict (
  landing  INTEGER NOT NULL REFERENCES landing ON DELETE CASCADE,
  tip      TEXT NOT NULL,
  why      TEXT NOT NULL,                                               -- it failed; '': it passed
  PRIMARY KEY (landing, tip)
) STRICT, WITHOUT ROWID;

ALTER TABLE landing DROP COLUMN port_base;
