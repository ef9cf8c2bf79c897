-- Tables that FOR ALL TABLES leaves out because their changes are not in the WAL.
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 14.
SELECT n.nspname::text AS schema,
       c.relname::text AS name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'u'
ORDER BY n.nspname, c.relname
