-- What a landing does about conflicts; whose conflict an agent resolves, and which commit it merges for that.

ALTER TABLE landing ADD COLUMN on_conflict TEXT NOT NULL DEFAULT 'report';
ALTER TABLE agent ADD COLUMN resolves INTEGER;                            -- the number of another agent
ALTER TABLE agent ADD COLUMN theirs TEXT NOT NULL DEFAULT '';
