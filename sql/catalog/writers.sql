-- The transactions that hold a lock of writers on a table or one of its partitions, by virtual transaction
-- (of a prepared one: by its own). Among them are those that have committed and still wait for a synchronous
-- standby: no snapshot shows their rows yet, although the stream has passed their commit.
-- Takes no lock on the tables itself, as pg_partition_tree would on each partition.
-- Run by: run, before a table is loaded. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- $1 OID of the table
SELECT DISTINCT l.virtualtransaction AS writer, coalesce(l.pid, 0) AS pid
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
WHERE l.locktype = 'relation' AND l.granted
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND l.relation IN (
        WITH RECURSIVE tree AS (
               SELECT $1::oid AS oid
               UNION ALL
               SELECT c.oid FROM tree
               JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
               JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
        SELECT oid FROM tree)
