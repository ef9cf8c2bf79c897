-- Moves a slot to a position without decoding what lies before it; it must not be in use.
-- Run by: run, before every table is loaded. Rights: REPLICATION. Since: PostgreSQL 14.
-- $1 slot, $2 position
SELECT end_lsn::text AS end_lsn FROM pg_catalog.pg_replication_slot_advance($1, $2::text::pg_lsn)
