-- Cancels the command of the process that has the slot, if it is this one.
-- Run by: run, when it is stopped while it creates the slot. Rights: those of the process's role.
-- Since: PostgreSQL 14.
-- $1 slot, $2 process
SELECT pg_catalog.pg_cancel_backend(s.active_pid)
FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name = $1 AND s.active_pid = $2
