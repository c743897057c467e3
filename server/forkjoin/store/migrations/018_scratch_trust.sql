-- What a scratch worktree is ready for, and whose caches it has: what was run there could write a mark beside it.

ALTER TABLE scratch ADD COLUMN ready TEXT NOT NULL DEFAULT '';          -- the run that has its files; '': none has
ALTER TABLE scratch ADD COLUMN tip TEXT NOT NULL DEFAULT '';            -- the commit that was run there last; '': unknown
