-- Money: what an agent may spend, what it was given of it, and what its model calls cost until its turn's own sum is told.

ALTER TABLE agent ADD COLUMN budget_usd REAL;                           -- the most that it may spend
ALTER TABLE agent ADD COLUMN reserved_usd REAL NOT NULL DEFAULT 0;      -- what it was given, spent or not
ALTER TABLE agent ADD COLUMN wind_up INTEGER NOT NULL DEFAULT 0;        -- asked to come to an end
ALTER TABLE agent ADD COLUMN ending INTEGER NOT NULL DEFAULT 0;         -- paused, and its program is to end

-- Parts of calls that no turn's sum has told of yet.
CREATE TABLE spent (
  agent     INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
  attempt   INTEGER NOT NULL,
  part      TEXT NOT NULL,
  model     TEXT NOT NULL,
  cost_usd  REAL,                                                       -- none: no price is known
  PRIMARY KEY (agent, attempt, part)
) STRICT;

-- What a repository's agents, or those of one lead in it, have spent, and may; '' for the whole repository.
CREATE TABLE budget (
  project    INTEGER NOT NULL REFERENCES project,
  lead       TEXT NOT NULL,
  limit_usd  REAL,
  spent_usd  REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (project, lead)
) STRICT, WITHOUT ROWID;

INSERT INTO budget (project, lead, spent_usd)
SELECT project, lead, sum(coalesce(cost_usd, 0)) FROM agent WHERE lead <> '' GROUP BY project, lead
UNION ALL SELECT project, '', sum(coalesce(cost_usd, 0)) FROM agent GROUP BY project;
