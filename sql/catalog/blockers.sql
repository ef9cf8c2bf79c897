-- Whom a process waits for, as one that creates a slot waits for every transaction that was open before.
-- Run by: run. Rights: none beyond CONNECT; of other roles' sessions the start is then NULL.
-- Since: PostgreSQL 14.
-- $1 process
SELECT CASE b.pid WHEN 0 THEN 'a prepared transaction' ELSE 'process ' || b.pid END AS who,
       extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
FROM unnest(pg_catalog.pg_blocking_pids($1)) AS b (pid)
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
ORDER BY seconds DESC NULLS LAST
