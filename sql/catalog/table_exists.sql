-- Whether a relation of that exact name exists, and its kind and persistence.
-- Run by: check. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- $1 schema, $2 name
SELECT c.relkind::text AS kind,
       c.relpersistence::text AS persistence
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
