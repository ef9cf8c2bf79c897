-- Whether a walsender waits for its client or for something to do, so that it would answer; false while it works.
-- No row if there is no such process. Where our role may not see it, it counts as working.
-- Run by: run. Rights: those of the process's role. Since: PostgreSQL 14.
-- $1 process
SELECT coalesce(a.wait_event_type IN ('Activity', 'Client'), false) AS waits
FROM pg_catalog.pg_stat_activity a
WHERE a.pid = $1
