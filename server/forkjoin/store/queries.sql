-- name: add_project!
INSERT INTO project (common_dir) VALUES (:common_dir) ON CONFLICT DO NOTHING;

-- name: project^
SELECT * FROM project WHERE common_dir = :common_dir;

-- name: project_numbered^
SELECT * FROM project WHERE number = :number;

-- name: add_agent!
-- A restored agent was prepared and has started. If its worktree was removed, it has ended.
INSERT INTO agent (number, project, lead, name, spec, state, merge, priority, base, branch, worktree, checkout,
                   conversation, environment, account, budget_usd, recipe, port_base, resolves, theirs, after, best_of,
                   base_agents, contest, contest_name, parent, above, attempt, stop_asked, ending, pause_reason,
                   paused_why, not_before, created, started, ended, removed, prepared, restored)
VALUES (:number, :project, :lead, :name, :spec, :state, 'unmerged', :priority, :base, :branch, :worktree, :checkout,
        :conversation, :environment, :account, :budget_usd, :recipe, :port_base, :resolves, :theirs, :after, :best_of,
        :base_agents, :contest, :contest_name, :parent, :above, :attempt, :stop_asked, :ending, :pause_reason,
        :paused_why, :not_before, :now, CASE WHEN :restored THEN :now END, :removed, :removed, :restored, :restored);

-- name: add_task!
INSERT INTO task (agent, task) VALUES (:agent, :task);

-- name: task$
SELECT task FROM task WHERE agent = :agent;

-- name: tasks
SELECT agent, task FROM task WHERE agent IN (SELECT value FROM json_each(:numbers));

-- name: task_beginnings
SELECT agent, substr(task, 1, :length) AS task FROM task WHERE agent IN (SELECT value FROM json_each(:numbers));

-- name: recipe$
SELECT recipe FROM agent WHERE number = :number;

-- name: landing_recipe$
SELECT recipe FROM landing WHERE number = :number;

-- name: port_blocks
-- Blocks in use. An agent keeps its block until its worktree is removed.
SELECT port_base, recipe FROM agent WHERE removed IS NULL AND port_base > 0
UNION ALL SELECT port_base, recipe FROM scratch WHERE port_base > 0;

-- name: agent_numbered^
SELECT * FROM agent WHERE number = :number;

-- name: agent_of_branch^
SELECT * FROM agent WHERE project = :project AND branch = :branch AND prepared ORDER BY number DESC LIMIT 1;

-- name: find_agent
-- No name looks like an id. A name that several agents or groups had refers to the current holder, or else the newest.
SELECT * FROM agent WHERE project = :project AND (number = :number OR :number IS NULL AND :name IN (name, contest_name))
ORDER BY (removed IS NULL AND merge <> 'merged') DESC, number DESC LIMIT 1;

-- name: candidates
SELECT * FROM agent WHERE contest = :contest AND contest > 0 ORDER BY number;

-- name: name_holder$
SELECT number FROM agent WHERE project = :project AND :name IN (name, contest_name) AND removed IS NULL
AND merge <> 'merged';

-- name: live_agents
-- The index holds only live agents. Without it, the query would read every agent ever recorded.
SELECT * FROM agent INDEXED BY agent_live WHERE state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost') ORDER BY number;

-- name: needed_environments
SELECT environment FROM agent INDEXED BY agent_live WHERE state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost')
UNION SELECT environment FROM landing WHERE state <> 'done';

-- name: agent_page
-- With `below`, only the descendants of this lead, and the agent `own`.
SELECT * FROM agent WHERE project = :project AND (:everything OR removed IS NULL) AND (:before IS NULL OR number < :before)
AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
AND (:below IS NULL OR :below = lead OR :below IN (SELECT value FROM json_each(above)) OR number = :own)
ORDER BY number DESC LIMIT :limit;

-- name: count_agents
-- The agents of all pages of `agent_page`, counted by state.
SELECT state, count(*) AS count FROM agent WHERE project = :project AND (:everything OR removed IS NULL)
AND (:below IS NULL OR :below = lead OR :below IN (SELECT value FROM json_each(above)) OR number = :own)
GROUP BY state;

-- name: open_agents
-- Live agents first, then ended agents that need attention because they are unmerged or have failed.
SELECT *, count(*) OVER () AS total FROM agent WHERE project = :project AND removed IS NULL
AND (state NOT IN ('succeeded', 'stopped') OR merge NOT IN ('merged', 'nothing'))
ORDER BY state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost'), number DESC LIMIT :limit;

-- name: unmerged_agents
SELECT * FROM agent WHERE project = :project AND prepared AND removed IS NULL AND merge NOT IN ('merged', 'nothing')
AND (:below IS NULL OR :below = lead OR :below IN (SELECT value FROM json_each(above)))
ORDER BY number DESC LIMIT :limit;

-- name: newest_agents
SELECT number, name FROM agent WHERE project = :project AND removed IS NULL ORDER BY number DESC LIMIT 8;

-- name: untold_agents
-- The agents that a wait without ids waits for: the lead's live agents, and the first ended agents that no wait
-- reported to the lead. With `everyone`, the agents of all leads of the project.
SELECT *, 0 AS ends FROM agent INDEXED BY agent_live WHERE project = :project AND (:everyone OR lead = :lead)
AND state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost')
UNION ALL SELECT * FROM (
  SELECT *, count(*) OVER () AS ends FROM agent WHERE project = :project AND (:everyone OR lead = :lead)
  AND state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost') AND removed IS NULL AND NOT EXISTS (
    SELECT 1 FROM told WHERE told.project = :project AND told.lead = :lead
    AND told.agent = agent.number AND told.attempt = agent.attempt)
  ORDER BY number LIMIT :most)
ORDER BY number;

-- name: move_agent!
UPDATE agent SET state = :to, settled = NULL, started = coalesce(started, :started), ended = coalesce(:ended, ended),
                 pause_reason = :pause_reason, paused_why = :paused_why, frozen = :frozen, ending = :ending,
                 not_before = :not_before, retried = retried + :counts
WHERE number = :number AND state = :from_ AND attempt = :attempt AND frozen = :was_frozen AND ending = :was_ending;

-- name: begin_attempt!
UPDATE agent SET attempt = attempt + 1 WHERE number = :number;

-- name: add_message!
-- An existing empty message marks an attempt that starts with the task, and is kept.
INSERT INTO message (agent, attempt, text) VALUES (:agent, :attempt, :text) ON CONFLICT DO NOTHING;

-- name: extend_message!
-- An empty message marks an attempt that starts with the task, and is kept. That attempt gets all messages anyway.
UPDATE message SET text = text || char(10, 10) || :text WHERE agent = :agent AND attempt = :attempt AND text <> '';

-- name: wake_agent!
-- Resets the marks of the attempts before: stop, retries, wind-up and merge.
UPDATE agent SET stop_asked = 0, retried = 0, wind_up = 0, was_merged = merge = 'merged',
                 merge = CASE merge WHEN 'merged' THEN 'unmerged' ELSE merge END,
                 environment = coalesce(:environment, environment), account = coalesce(:account, account)
WHERE number = :number;

-- name: add_mail<!
INSERT INTO mail (agent, text) VALUES (:agent, :text);

-- name: waiting_mail
SELECT number, text FROM mail WHERE agent = :agent AND attempt IS NULL ORDER BY number;

-- name: mail_sent$
SELECT sent IS NOT NULL AND attempt IS NOT NULL FROM mail WHERE number = :number;

-- name: mail_told
SELECT text FROM mail WHERE agent = :agent AND attempt <= :attempt ORDER BY number;

-- name: give_mail!
UPDATE mail SET attempt = :attempt, sent = NULL WHERE agent = :agent AND attempt IS NULL;

-- name: begin_sending!
UPDATE mail SET sent = (SELECT coalesce(max(event.number), 0) FROM event WHERE event.agent = mail.agent)
WHERE number = :number AND attempt IS NULL AND sent IS NULL;

-- name: set_sent!
UPDATE mail SET attempt = :attempt WHERE number = :number AND attempt IS NULL;

-- name: take_back_mail!
-- Messages that were sent to an attempt wait again, unless the attempt has answered them: a later turn ended without an
-- error, and no turn has begun after that. With `all_`, this includes the messages that the attempt started with.
UPDATE mail SET attempt = NULL, sent = NULL
WHERE agent = :agent AND attempt = :attempt AND (:all_ OR sent IS NOT NULL) AND NOT EXISTS (
  SELECT 1 FROM event AS answer WHERE answer.agent = :agent AND answer.attempt = :attempt
  AND answer.kind = 'turn_ended' AND NOT answer.failed AND answer.number > coalesce(mail.sent, 0)
  AND NOT EXISTS (SELECT 1 FROM event WHERE event.agent = :agent AND event.attempt = :attempt
                  AND event.kind = 'started' AND event.number > answer.number));

-- name: agents_with_mail
SELECT * FROM agent WHERE state IN ('running', 'waiting') AND number IN (SELECT agent FROM mail WHERE attempt IS NULL)
AND NOT EXISTS (SELECT 1 FROM progress WHERE progress.agent = agent.number AND progress.attempt = agent.attempt
                AND turn_end IS NOT NULL);

-- name: message$
SELECT text FROM message WHERE agent = :agent AND attempt = :attempt AND text <> ''
AND EXISTS (SELECT 1 FROM event WHERE event.agent = :agent AND kind IN ('said', 'used', 'turn_ended'));

-- name: has_answered$
SELECT 1 FROM event WHERE agent = :agent AND kind IN ('said', 'used', 'turn_ended') LIMIT 1;

-- name: set_merge!
UPDATE agent SET merge = :merge, settled = NULL WHERE number = :number;

-- name: set_landed!
-- A merged branch stays merged whatever another merge's outcome is, because another agent may have its name.
UPDATE agent SET merge = :merge WHERE number = :number AND (merge <> 'merged' OR :merge = 'merged');

-- name: unqueue_merges!
-- The queued branches of these agents become unmerged, except for branches that an open merge job has queued.
UPDATE agent SET merge = 'unmerged' WHERE merge = 'queued' AND number IN (SELECT value FROM json_each(:agents))
AND number NOT IN (SELECT value FROM landing, json_each(landing.agents) WHERE landing.state <> 'done' AND NOT dry_run);

-- name: set_undone!
-- The branch stays merged if another agent has the agent's name (a unique index).
UPDATE OR IGNORE agent SET merge = CASE merge WHEN 'merged' THEN 'unmerged' ELSE merge END, settled = NULL, was_merged = 0
WHERE number = :number;

-- name: agents_numbered
SELECT * FROM agent WHERE number IN (SELECT value FROM json_each(:numbers));

-- name: ended_agents
-- The final states of dependencies. A merged agent's record may have been deleted.
SELECT number, state FROM agent WHERE number IN (SELECT value FROM json_each(:numbers))
AND state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost');

-- name: agents_before
WITH RECURSIVE pair (number, before) AS (
  SELECT number, json_each.value FROM agent JOIN json_each(agent.after)
  WHERE number IN (SELECT value FROM json_each(:numbers))
  UNION SELECT pair.number, json_each.value FROM pair JOIN agent ON agent.number = pair.before JOIN json_each(agent.after))
SELECT number, before FROM pair;

-- name: queue_merge!
UPDATE agent SET merge = 'queued' WHERE number = :number AND merge NOT IN ('merged', 'nothing');

-- name: add_token!
INSERT INTO token (digest, agent) VALUES (:digest, :agent) ON CONFLICT DO NOTHING;

-- name: agent_of_token^
SELECT agent.* FROM agent JOIN token ON token.agent = agent.number WHERE token.digest = :digest;

-- name: ancestors
WITH RECURSIVE it (number, rank) AS (
  SELECT :number, 0 UNION ALL SELECT parent, rank + 1 FROM agent JOIN it USING (number) WHERE parent IS NOT NULL)
SELECT agent.* FROM agent JOIN it USING (number) ORDER BY rank;

-- name: live_below
WITH RECURSIVE below (number) AS (
  SELECT number FROM agent WHERE parent IN (SELECT value FROM json_each(:numbers))
  UNION SELECT agent.number FROM agent JOIN below ON agent.parent = below.number)
SELECT agent.* FROM agent JOIN below USING (number)
WHERE state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost') ORDER BY number;

-- name: add_spawned!
UPDATE agent SET spawned = spawned + :count WHERE number = :number;

-- name: add_finding!
INSERT INTO finding (agent, at, text) VALUES (:agent, :at, :text);

-- name: delete_findings!
DELETE FROM finding WHERE number IN (
  SELECT finding.number FROM finding JOIN agent ON agent.number = finding.agent
  WHERE project = :project AND lead = :lead ORDER BY finding.number DESC LIMIT -1 OFFSET :most);

-- name: findings
SELECT finding.agent, agent.name, finding.at, finding.text FROM finding JOIN agent ON agent.number = finding.agent
WHERE project = :project AND lead IN (:lead, :own) ORDER BY finding.number DESC LIMIT :most;

-- name: add_refs_before!
INSERT INTO refs_before (agent, at, refs) VALUES (:agent, :at, :refs) ON CONFLICT DO NOTHING;

-- name: refs_before^
SELECT at, refs FROM refs_before WHERE agent = :agent;

-- name: delete_refs_before!
DELETE FROM refs_before WHERE agent = :agent;

-- name: set_set_up!
INSERT INTO set_up (agent, files) VALUES (:agent, :files) ON CONFLICT DO UPDATE SET files = excluded.files;

-- name: set_up_files$
SELECT files FROM set_up WHERE agent = :agent;

-- name: explained_branches
-- Leaves out branches of agents that ended before `since` and still have their worktrees.
SELECT branch FROM agent WHERE project = :project AND branch IN (SELECT value FROM json_each(:branches))
AND NOT (state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost') AND coalesce(ended, 0) < :since
         AND removed IS NULL AND NOT removing);

-- name: branches_left
-- Branches of other agents that ended after `since` and still have their worktrees.
SELECT branch, json_extract(result, '$.commit') AS "commit" FROM agent JOIN result ON result.agent = agent.number
WHERE project = :project AND number != :agent AND ended >= :since AND removed IS NULL AND NOT removing
AND state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost') AND json_extract(result, '$.commit') IS NOT NULL;

-- name: merge_commits
SELECT target, json_extract(move, '$.move.new') AS "commit" FROM landing
WHERE project = :project AND target IN (SELECT value FROM json_each(:refs)) AND move IS NOT NULL;

-- name: ask_stop!
UPDATE agent SET stop_asked = 1 WHERE number = :number;

-- name: set_cost!
INSERT INTO progress (agent, attempt, offset, cost_usd) VALUES (:agent, :attempt, 0, :cost_usd)
ON CONFLICT DO UPDATE SET cost_usd = :cost_usd;

-- name: add_spent!
INSERT INTO spent (agent, attempt, part, model, cost_usd) VALUES (:agent, :attempt, :part, :model, :cost_usd)
ON CONFLICT DO NOTHING;

-- name: add_grant!
INSERT INTO spent (agent, attempt, part, model, cost_usd)
SELECT number, :attempt, 'all that it was given', '', reserved_usd - coalesce(cost_usd, 0) FROM agent
WHERE number = :agent AND reserved_usd > coalesce(cost_usd, 0)
AND NOT EXISTS (SELECT 1 FROM progress WHERE agent = :agent AND attempt = :attempt AND cost_usd IS NOT NULL)
AND NOT EXISTS (SELECT 1 FROM spent WHERE agent = :agent AND attempt = :attempt AND cost_usd IS NOT NULL)
ON CONFLICT DO NOTHING;

-- name: delete_spent!
DELETE FROM spent WHERE agent = :agent AND attempt = :attempt;

-- name: last_model$
SELECT model FROM spent WHERE agent = :agent AND attempt = :attempt ORDER BY rowid DESC LIMIT 1;

-- name: unpriced
SELECT DISTINCT model FROM spent WHERE agent = :agent AND cost_usd IS NULL;

-- name: cost$
SELECT coalesce(cost_usd, 0) FROM agent WHERE number = :agent;

-- name: has_little$
-- Little is a tenth of the agent's budget, or of what is reserved for it if it has no budget, as in scheduling/budget.py.
SELECT reserved_usd > 0 AND coalesce(cost_usd, 0) + 1e-9 >= reserved_usd - coalesce(budget_usd, reserved_usd) / 10
FROM agent WHERE number = :agent;

-- name: sum_costs!
UPDATE agent SET cost_usd = (SELECT sum(cost_usd) FROM (SELECT cost_usd FROM progress WHERE agent = number
                                                        UNION ALL SELECT cost_usd FROM spent WHERE agent = number))
WHERE number = :agent;

-- name: add_to_budget!
INSERT INTO budget (project, lead, spent_usd) VALUES (:project, :lead, max(0, :usd))
ON CONFLICT DO UPDATE SET spent_usd = max(0, spent_usd + :usd);

-- name: budgets
-- Budgets that live agents count against, and the budgets of these projects.
SELECT * FROM budget WHERE project IN (SELECT value FROM json_each(:projects)) AND lead = ''
OR EXISTS (SELECT 1 FROM agent INDEXED BY agent_live WHERE agent.project = budget.project AND (budget.lead IN (agent.lead, '', 'agent:a' || agent.number)
                OR budget.lead IN (SELECT value FROM json_each(above)))
           AND state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost'))
ORDER BY project, lead;

-- name: project_budgets
SELECT * FROM budget WHERE project = :project ORDER BY limit_usd IS NULL, spent_usd DESC LIMIT 100;

-- name: has_budget$
SELECT count(*) FROM budget WHERE project = :project AND lead = :lead;

-- name: delete_budgets!
DELETE FROM budget WHERE (limit_usd IS NULL OR lead LIKE 'agent:%') AND lead <> ''
AND NOT EXISTS (SELECT 1 FROM agent WHERE agent.project = budget.project
                AND budget.lead IN (agent.lead, 'agent:a' || agent.number));

-- name: set_limit!
INSERT INTO budget (project, lead, limit_usd) VALUES (:project, :lead, :limit_usd)
ON CONFLICT DO UPDATE SET limit_usd = :limit_usd;

-- name: count_anew!
UPDATE budget SET spent_usd = 0 WHERE project = :project AND lead = :lead;

-- name: give!
UPDATE agent SET reserved_usd = :usd, wind_up = 0 WHERE number = :number;

-- name: half_removed_agents
SELECT * FROM agent WHERE removing AND removed IS NULL;

-- name: set_agents!
-- Columns whose value is NULL stay as they are.
UPDATE agent SET base = coalesce(:base, base), branch = coalesce(:branch, branch), prepared = coalesce(:prepared, prepared),
                 removing = coalesce(:removing, removing), removed = coalesce(:removed, removed),
                 budget_usd = coalesce(:budget_usd, budget_usd), wind_up = coalesce(:wind_up, wind_up)
WHERE number IN (SELECT value FROM json_each(:numbers));

-- name: add_result!
INSERT INTO result (agent, attempt, result) VALUES (:agent, :attempt, :result) ON CONFLICT DO NOTHING;

-- name: renew_result!
UPDATE result SET result = :result
WHERE agent = :agent AND attempt = (SELECT max(attempt) FROM result WHERE agent = :agent);

-- name: result$
SELECT result FROM result WHERE agent = :agent ORDER BY attempt DESC LIMIT 1;

-- name: results
SELECT agent, result FROM result AS it WHERE agent IN (SELECT value FROM json_each(:numbers))
AND attempt = (SELECT max(attempt) FROM result WHERE agent = it.agent);

-- name: progress^
SELECT offset, turn_end FROM progress WHERE agent = :agent AND attempt = :attempt;

-- name: set_progress!
INSERT INTO progress (agent, attempt, offset, turn_end) VALUES (:agent, :attempt, :offset, :turn_end)
ON CONFLICT DO UPDATE SET offset = :offset, turn_end = coalesce(:turn_end, turn_end);

-- name: add_event!
INSERT INTO event (agent, number, attempt, at, kind, text, offset, failed)
SELECT :agent, coalesce(max(number), 0) + 1, :attempt, :at, :kind, :text, :offset, :failed FROM event WHERE agent = :agent;

-- name: set_last_event!
UPDATE agent SET last_event = :text WHERE number = :agent;

-- name: events_after
SELECT number, attempt, at, kind, text, offset FROM event WHERE agent = :agent AND number > :after ORDER BY number LIMIT :limit;

-- name: count_reports$
SELECT count(*) FROM event WHERE agent = :agent AND kind = 'reported';

-- name: denials
SELECT DISTINCT text FROM event WHERE agent = :agent AND attempt = :attempt AND kind = 'denied';

-- name: refusals
SELECT DISTINCT text FROM event WHERE agent = :agent AND attempt = :attempt AND kind = 'refused';

-- name: last_turn^
SELECT text, failed FROM event WHERE agent = :agent AND attempt = :attempt AND kind = 'turn_ended'
ORDER BY number DESC LIMIT 1;

-- name: last_of_turns$
SELECT kind FROM event WHERE agent = :agent AND attempt = :attempt AND kind IN ('started', 'turn_ended')
ORDER BY number DESC LIMIT 1;

-- name: last_event_number$
SELECT coalesce(max(number), 0) FROM event WHERE agent = :agent;

-- name: add_told!
INSERT INTO told (project, lead, agent, attempt) VALUES (:project, :lead, :agent, :attempt) ON CONFLICT DO NOTHING;

-- name: add_request<!
INSERT INTO request (agent, call, kind, text, fallback, asked, expires)
VALUES (:agent, :call, :kind, :text, :fallback, :asked, :expires);

-- name: request^
SELECT * FROM request WHERE number = :number;

-- name: request_of_call^
SELECT * FROM request WHERE agent = :agent AND call = :call;

-- name: project_request^
SELECT request.* FROM request JOIN agent ON agent.number = request.agent
WHERE request.number = :number AND project = :project;

-- name: open_requests
-- The open requests of one project, or of all projects.
SELECT request.* FROM request INDEXED BY request_open JOIN agent ON agent.number = request.agent
WHERE closed IS NULL AND (project = :project OR :project IS NULL) ORDER BY request.number;

-- name: requests_of
-- The open requests of these agents.
SELECT * FROM request WHERE closed IS NULL AND agent IN (SELECT value FROM json_each(:agents)) ORDER BY number;

-- name: requests_to
-- The open requests of this lead's agents.
SELECT request.* FROM request INDEXED BY request_open JOIN agent ON agent.number = request.agent
WHERE closed IS NULL AND project = :project AND lead = :lead ORDER BY request.number;

-- name: count_requests$
SELECT count(*) FROM request WHERE agent = :agent;

-- name: told_requests
SELECT request FROM request_told WHERE project = :project AND lead = :lead
AND request IN (SELECT value FROM json_each(:requests));

-- name: add_request_told!
INSERT OR IGNORE INTO request_told (project, lead, request) SELECT :project, :lead, number FROM request
WHERE number = :request;

-- name: next_expiry$
SELECT min(expires) FROM request WHERE closed IS NULL;

-- name: expired_requests
SELECT * FROM request INDEXED BY request_open WHERE closed IS NULL AND expires <= :now ORDER BY number;

-- name: postpone_requests!
UPDATE request SET expires = expires + :seconds WHERE closed IS NULL AND asked <= :before;

-- name: close_request!
UPDATE request SET closed = :now, said = :said, reason = :reason, answered_by = :answered_by
WHERE number = :number AND closed IS NULL;

-- name: withdraw_requests!
UPDATE request SET closed = :now WHERE agent = :agent AND closed IS NULL;

-- name: add_landing<!
INSERT INTO landing (project, lead, agents, target, verify, dry_run, environment, checkout, recipe, strategy,
                     include_failed, undoes, on_conflict, state, created)
VALUES (:project, :lead, :agents, :target, :verify, :dry_run, :environment, :checkout, :recipe, :strategy,
        :include_failed, :undoes, :on_conflict, 'queued', :created);

-- name: landing^
SELECT * FROM landing WHERE number = :number;

-- name: open_landings
SELECT * FROM landing WHERE state <> 'done' ORDER BY number;

-- name: set_landing!
UPDATE landing SET state = :state, move = :move WHERE number = :number;

-- name: end_landing!
UPDATE landing SET state = 'done', answer = :answer WHERE number = :number;

-- name: squashes
-- The commits that an agent's branch was squashed into.
SELECT json_extract(one.value, '$.commit') AS made FROM landing JOIN json_each(answer, '$.merged') AS one
WHERE strategy = 'squash' AND state = 'done' AND move IS NOT NULL AND json_extract(answer, '$.error') IS NULL
AND json_extract(one.value, '$.id') = :id;

-- name: resolvers
-- Unmerged agents that merge jobs spawned to resolve conflicts with a target, newest first.
SELECT * FROM agent WHERE project = :project AND resolves IS NOT NULL AND removed IS NULL
AND merge NOT IN ('merged', 'rejected') AND state NOT IN ('failed', 'stopped', 'timed_out', 'lost')
AND number IN (SELECT CAST(substr(json_extract(value, '$.resolving'), 2) AS INTEGER)
               FROM landing, json_each(answer, '$.conflicted')
               WHERE landing.project = :project AND target = :target AND on_conflict = 'agent' AND state = 'done')
ORDER BY number DESC;

-- name: merges
-- Merge jobs that moved a target, undone or not, newest first.
SELECT * FROM landing WHERE project = :project AND target = :target AND state = 'done' AND move IS NOT NULL
AND json_extract(answer, '$.error') IS NULL AND undoes IS NULL ORDER BY number DESC;

-- name: squashed_at^
-- The last squash of an agent's branch into a target that was not undone: the branch's tip, and the new commit.
SELECT json_extract(one.value, '$.tip') AS tip, json_extract(one.value, '$.commit') AS made
FROM landing AS it JOIN json_each(it.answer, '$.merged') AS one
WHERE project = :project AND target = :target AND strategy = 'squash' AND state = 'done' AND move IS NOT NULL
AND json_extract(answer, '$.error') IS NULL AND json_extract(one.value, '$.id') = :id AND NOT EXISTS (
  SELECT 1 FROM landing WHERE undoes = it.number AND move IS NOT NULL AND json_extract(answer, '$.error') IS NULL)
ORDER BY it.number DESC LIMIT 1;

-- name: revert_of^
-- The target and commit that reverted the last merge of an agent's branch. Both are NULL if it was not reverted.
SELECT undo.target, json_extract(undo.answer, '$.commit') AS made
FROM landing AS it JOIN json_each(it.answer, '$.merged') AS one LEFT JOIN landing AS undo
ON undo.undoes = it.number AND json_extract(undo.answer, '$.reverted')
WHERE it.strategy = 'merge' AND it.state = 'done' AND it.move IS NOT NULL AND json_extract(one.value, '$.id') = :id
ORDER BY it.number DESC LIMIT 1;

-- name: moves
-- Merge jobs that moved a target and were not undone, newest first. A failed job has a planned move, but also an error.
SELECT * FROM landing AS it WHERE project = :project AND target = :target AND state = 'done' AND move IS NOT NULL
AND json_extract(answer, '$.error') IS NULL AND undoes IS NULL
AND NOT EXISTS (SELECT 1 FROM landing WHERE undoes = it.number
                AND (state <> 'done' OR move IS NOT NULL AND json_extract(answer, '$.error') IS NULL))
ORDER BY number DESC;

-- name: delete_verdicts!
DELETE FROM verdict WHERE landing = :landing;

-- name: verdict$
SELECT why FROM verdict WHERE landing = :landing AND tip = :tip;

-- name: set_verdict!
INSERT INTO verdict (landing, tip, why) VALUES (:landing, :tip, :why) ON CONFLICT DO NOTHING;

-- name: find_scratch$
SELECT number FROM scratch WHERE project = :project AND target = :target AND recipe = :recipe AND checkout = :checkout
AND NOT retired;

-- name: scratch^
SELECT * FROM scratch WHERE number = :number;

-- name: scratches
SELECT * FROM scratch ORDER BY number;

-- name: add_scratch<!
INSERT INTO scratch (project, target, recipe, checkout, port_base, used)
VALUES (:project, :target, :recipe, :checkout, :port_base, :used);

-- name: use_scratch!
UPDATE scratch SET used = :used WHERE number = :number;

-- name: set_scratch!
UPDATE scratch SET ready = :ready, tip = :tip WHERE number = :number;

-- name: retire_scratch!
UPDATE scratch SET retired = 1 WHERE number = :number;

-- name: retire_replaced!
-- Retires all scratch worktrees of a target except for the one that was used last.
UPDATE scratch SET retired = 1 WHERE project = :project AND target = :target AND number NOT IN (
  SELECT number FROM scratch WHERE project = :project AND target = :target AND NOT retired ORDER BY used DESC LIMIT 1
);

-- name: retire_unused!
UPDATE scratch SET retired = 1 WHERE (used < :before OR number IN (SELECT value FROM json_each(:numbers)))
AND NOT EXISTS (SELECT 1 FROM landing WHERE landing.project = scratch.project AND landing.target = scratch.target
                AND state <> 'done');

-- name: forget_scratch!
DELETE FROM scratch WHERE number = :number;

-- name: call$
SELECT answer FROM call WHERE relay = :relay AND request = :request;

-- name: add_call!
INSERT INTO call (relay, request, answer, at, day) SELECT :relay, :request, :answer, :at, count(*) FROM day;

-- name: defer!
INSERT INTO deferred (id, project, relay, request, tool, arguments, agents, created, updated)
VALUES (:id, :project, :relay, :request, :tool, :arguments, :agents, :now, :now) ON CONFLICT (relay, request) DO NOTHING;

-- name: deferred
SELECT deferred.* FROM json_each(:ids) AS asked JOIN deferred ON deferred.id = asked.value ORDER BY asked.key;

-- name: deferred_call^
SELECT * FROM deferred WHERE relay = :relay AND request = :request;

-- name: end_deferred!
UPDATE deferred SET answer = :answer, updated = :now WHERE id = :id AND answer IS NULL AND NOT cancelled;

-- name: cancel_deferred!
UPDATE deferred SET cancelled = 1, updated = :now WHERE id = :id AND answer IS NULL AND NOT cancelled;

-- name: see_day!
INSERT INTO day (date) VALUES (:date) ON CONFLICT DO NOTHING;

-- name: days$
SELECT count(*) FROM day;

-- name: settle!
-- A candidate whose unmerged work was discarded counts, too. Otherwise its group would be kept forever.
UPDATE agent SET settled = :day WHERE settled IS NULL
AND (merge IN ('merged', 'nothing') OR contest > 0 AND removed IS NOT NULL)
AND state IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost');

-- name: settled_agents
-- Leaves out agents that an open merge job or a live agent's dependency still needs. Candidates are deleted together.
-- Otherwise another candidate would become the best of the remaining ones.
WITH needed AS (
  SELECT json_each.value FROM landing JOIN json_each(landing.agents) WHERE landing.state <> 'done'
  UNION SELECT json_each.value FROM agent JOIN json_each(agent.after)
  WHERE agent.state NOT IN ('succeeded', 'failed', 'stopped', 'timed_out', 'lost'))
SELECT * FROM agent WHERE settled <= :day AND number NOT IN needed
AND NOT EXISTS (SELECT 1 FROM agent AS other WHERE other.contest > 0 AND other.contest = agent.contest
                AND (other.settled IS NULL OR other.settled > :day OR other.number IN needed))
ORDER BY number;

-- name: delete_agent!
DELETE FROM agent WHERE number = :agent;

-- name: delete_task!
DELETE FROM task WHERE agent = :agent;

-- name: delete_results!
DELETE FROM result WHERE agent = :agent;

-- name: delete_progress!
DELETE FROM progress WHERE agent = :agent;

-- name: delete_events!
DELETE FROM event WHERE agent = :agent;

-- name: delete_told!
-- A wait without ids leaves out removed agents, so their entries are useless.
DELETE FROM told WHERE agent NOT IN (SELECT number FROM agent WHERE removed IS NULL);

-- name: delete_landings!
-- The newest merge job stays, so that its number is not used again.
-- The last 1000 jobs that moved a target stay, because they may be undone or have undone another job.
DELETE FROM landing WHERE state = 'done' AND number < (SELECT max(number) FROM landing)
AND number NOT IN (SELECT number FROM landing WHERE move IS NOT NULL ORDER BY number DESC LIMIT 1000)
AND NOT EXISTS (SELECT 1 FROM json_each(landing.agents) JOIN agent ON agent.number = json_each.value);

-- name: delete_deferred!
DELETE FROM deferred WHERE created < :before;

-- name: delete_calls!
DELETE FROM call WHERE day < :day AND relay NOT IN (SELECT value FROM json_each(:relays));

-- name: agent_numbers
SELECT number FROM agent;

-- name: handed_out$
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'agent';

-- name: begin_numbers!
INSERT INTO sqlite_sequence (name, seq) SELECT 'agent', 0
WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'agent');

-- name: skip_numbers!
UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = 'agent';

-- name: count_spawned!
-- Counts the descendants of restored agents, as far as these have records.
UPDATE agent SET spawned = (
  SELECT count(*) FROM agent AS one WHERE one.lead = 'agent:a' || agent.number
  OR 'agent:a' || agent.number IN (SELECT value FROM json_each(one.above)))
WHERE restored = 1 AND spawned = 0;

-- name: peaks
SELECT * FROM peak;

-- name: set_peak!
INSERT INTO peak (project, program, bytes) VALUES (:project, :program, :bytes)
ON CONFLICT DO UPDATE SET bytes = :bytes;
