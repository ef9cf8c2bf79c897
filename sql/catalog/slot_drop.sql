-- Drops a slot; it must not be in use.
-- Run by: teardown. Rights: REPLICATION. Since: PostgreSQL 14.
-- $1 slot
SELECT pg_catalog.pg_drop_replication_slot($1)
