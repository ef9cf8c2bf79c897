-- The oldest transaction that has written or holds a snapshot, other than our own sessions': the slot's WAL is
-- kept at least from where it began, whatever is confirmed.
-- Run by: run, status. Rights: none beyond CONNECT; of other roles' sessions the start is then NULL.
-- Since: PostgreSQL 14.
SELECT who, seconds
FROM (SELECT 'process ' || a.pid AS who,
             extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds,
             greatest(age(a.backend_xid), age(a.backend_xmin)) AS age
      FROM pg_catalog.pg_stat_activity a
      WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend'
        AND coalesce(a.backend_xid, a.backend_xmin) IS NOT NULL
      UNION ALL
      SELECT 'prepared transaction ' || quote_literal(p.gid),
             extract(epoch FROM clock_timestamp() - p.prepared)::bigint,
             age(p.transaction)
      FROM pg_catalog.pg_prepared_xacts p) t
ORDER BY age DESC, seconds DESC NULLS LAST
LIMIT 1
