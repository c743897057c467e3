-- What agents have found and tell each other, and agents that agents have spawned.

CREATE TABLE finding (
  number  INTEGER PRIMARY KEY AUTOINCREMENT,
  agent   INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
  at      REAL NOT NULL,
  text    TEXT NOT NULL
) STRICT;
CREATE INDEX finding_of ON finding (agent);

ALTER TABLE agent ADD COLUMN parent INTEGER;                     -- that has spawned it; no reference: its record may go
ALTER TABLE agent ADD COLUMN above TEXT NOT NULL DEFAULT '[]';   -- JSON: the leads above its own, nearest first
ALTER TABLE agent ADD COLUMN spawned INTEGER NOT NULL DEFAULT 0; -- how many it has spawned, and they, in all
CREATE INDEX agent_parent ON agent (parent) WHERE parent IS NOT NULL;
