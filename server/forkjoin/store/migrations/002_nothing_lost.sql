-- Tasks stand apart, so that a look at the agents reads none; and what retention and restored records need.

CREATE TABLE task (
  agent  INTEGER PRIMARY KEY REFERENCES agent,
  task   TEXT NOT NULL
) STRICT;

INSERT INTO task SELECT number, coalesce(json_extract(spec, '$.task'), '') FROM agent;
UPDATE agent SET spec = json_remove(spec, '$.task', '$.name');

ALTER TABLE agent ADD COLUMN restored INTEGER NOT NULL DEFAULT 0;  -- from its attempt's files
ALTER TABLE agent ADD COLUMN settled INTEGER;  -- the day (of those seen) since which nothing of it is unmerged
CREATE INDEX agent_settled ON agent (settled) WHERE settled IS NOT NULL;

-- The dates on which a daemon ran. Retention counts these: a clock that is set forward by a year adds one.
CREATE TABLE day (
  date  TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

ALTER TABLE call ADD COLUMN day INTEGER NOT NULL DEFAULT 0;

CREATE INDEX landing_open ON landing (number) WHERE state <> 'done';
CREATE INDEX event_denied ON event (agent, attempt) WHERE kind = 'denied';
