-- Whose work an agent starts from, where its base is no commit; and who are candidates for the same task.

ALTER TABLE agent ADD COLUMN base_agents TEXT NOT NULL DEFAULT '[]';   -- JSON: their numbers; the best one's
ALTER TABLE agent ADD COLUMN best_of TEXT NOT NULL DEFAULT '[]';       -- JSON: lists of numbers, of each of which the best counts
ALTER TABLE agent ADD COLUMN contest INTEGER NOT NULL DEFAULT 0;       -- the number of the first candidate; 0: none
ALTER TABLE agent ADD COLUMN contest_name TEXT NOT NULL DEFAULT '';    -- of all of them; unique as names are
CREATE INDEX agent_contest ON agent (contest) WHERE contest > 0;
