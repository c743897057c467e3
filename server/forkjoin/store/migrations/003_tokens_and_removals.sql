-- What agents' programs are known by when they call forkjoin themselves: a digest, of a token that is never on a disk.

CREATE TABLE token (
  digest  TEXT PRIMARY KEY,
  agent   INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX token_agent ON token (agent);

-- Recorded before the first of an agent's worktree and branch goes: a removal that is cut off is finished.
ALTER TABLE agent ADD COLUMN removing INTEGER NOT NULL DEFAULT 0;
