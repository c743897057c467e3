-- What was there before an agent's program started.

CREATE TABLE refs_before (      -- until the attempt's result is recorded
  agent  INTEGER PRIMARY KEY REFERENCES agent ON DELETE CASCADE,
  at     REAL NOT NULL,
  refs   BLOB NOT NULL          -- zlib: a line for each ref, "<object> <full name> <symbolic target>"
) STRICT;
CREATE TABLE set_up (           -- what setup left in its worktree, beside its commit
  agent  INTEGER PRIMARY KEY REFERENCES agent ON DELETE CASCADE,
  files  BLOB NOT NULL          -- 16 bytes for each file: the digest of its path, mode and content
) STRICT;
