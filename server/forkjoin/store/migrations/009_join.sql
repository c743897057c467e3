-- How a landing merges, what it undoes, and what it moved, once it is done.

ALTER TABLE landing ADD COLUMN strategy TEXT NOT NULL DEFAULT 'merge';
ALTER TABLE landing ADD COLUMN include_failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE landing ADD COLUMN undoes INTEGER;                            -- the number of another landing
