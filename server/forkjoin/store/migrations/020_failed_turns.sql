-- Whether a turn ended with an error, as a code. `text` keeps the words that logs show.

ALTER TABLE event ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
UPDATE event SET failed = 1 WHERE kind = 'turn_ended' AND text LIKE '(error) %';
