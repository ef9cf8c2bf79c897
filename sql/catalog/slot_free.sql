-- Ends the process that reads the slot, if it is this one: of a connection that we have given up, and that the
-- server has not.
-- Run by: run. Rights: those of the process's role. Since: PostgreSQL 14.
-- $1 slot, $2 process
SELECT pg_catalog.pg_terminate_backend(s.active_pid)
FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name = $1 AND s.active_pid = $2
