-- What agents are told after their task, in the order in which it was said.

CREATE TABLE mail (
  number   INTEGER PRIMARY KEY AUTOINCREMENT,
  agent    INTEGER NOT NULL REFERENCES agent ON DELETE CASCADE,
  text     TEXT NOT NULL,
  attempt  INTEGER,                                                      -- that it was given to; none: it waits
  sent     INTEGER                                                       -- the last event before it was sent to one under way
) STRICT;
ALTER TABLE agent ADD COLUMN was_merged INTEGER NOT NULL DEFAULT 0;
CREATE INDEX mail_of ON mail (agent, attempt);
