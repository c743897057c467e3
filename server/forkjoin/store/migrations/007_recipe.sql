-- What a repository wants of its worktrees, as it was trusted when each was asked for; and a block of ports for each.

ALTER TABLE agent ADD COLUMN recipe TEXT NOT NULL DEFAULT '{}';        -- JSON
ALTER TABLE agent ADD COLUMN port_base INTEGER NOT NULL DEFAULT 0;     -- 0: none
ALTER TABLE landing ADD COLUMN recipe TEXT NOT NULL DEFAULT '{}';
ALTER TABLE landing ADD COLUMN port_base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE landing ADD COLUMN checkout TEXT NOT NULL DEFAULT '';      -- the user's, from where ignored files are brought
