-- What agents' programs are known by when they call forkjoin themselves: a digest, of a token that is never on a disk.

CREATE TABLE token (
  digest  TEXT PRIMARY KEY,
  agent   INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX token_agent ON token (agent);
