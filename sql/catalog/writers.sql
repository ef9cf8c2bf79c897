-- The transactions that hold a lock of writers on a table or one of its partitions, by virtual transaction
-- (of a prepared one: by its own). Among them are those that have committed and still wait for a synchronous
-- standby: no snapshot shows their rows yet, although the stream has passed their commit.
-- Run by: run, before a table is loaded. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- $1 OID of the table
SELECT DISTINCT l.virtualtransaction AS writer, coalesce(l.pid, 0) AS pid
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
WHERE l.locktype = 'relation' AND l.granted
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND l.relation IN (SELECT $1::oid UNION ALL SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::oid) t)
