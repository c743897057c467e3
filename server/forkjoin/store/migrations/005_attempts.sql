-- An agent may have several attempts: it rests between them, is tried again, and is told how to go on.

ALTER TABLE agent ADD COLUMN account TEXT NOT NULL DEFAULT '';         -- whose rate limit it counts against
UPDATE agent SET account = 'claude' WHERE coalesce(json_extract(spec, '$.agent'), 'claude') = 'claude';
ALTER TABLE agent ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;        -- paused with its program stopped in midst
ALTER TABLE agent ADD COLUMN paused_why TEXT NOT NULL DEFAULT '';
ALTER TABLE agent ADD COLUMN not_before REAL NOT NULL DEFAULT 0;       -- paused until then
ALTER TABLE agent ADD COLUMN retried INTEGER NOT NULL DEFAULT 0;       -- of what its spec allows

ALTER TABLE progress ADD COLUMN cost_usd REAL;                         -- of this attempt; an agent's is the sum
UPDATE progress SET cost_usd = (SELECT cost_usd FROM agent WHERE number = agent) WHERE attempt = 1;

-- What a later attempt is told; the first has its task.
CREATE TABLE message (
  agent    INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
  attempt  INTEGER NOT NULL,
  text     TEXT NOT NULL,
  PRIMARY KEY (agent, attempt)
) STRICT, WITHOUT ROWID;
