-- Whom an agent comes after: those must have ended before it starts.

ALTER TABLE agent ADD COLUMN after TEXT NOT NULL DEFAULT '[]';  -- JSON: their numbers
