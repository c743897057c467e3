-- Whose work an agent starts from, where its base is no commit.

ALTER TABLE agent ADD COLUMN base_agents TEXT NOT NULL DEFAULT '[]';  -- JSON: their numbers
