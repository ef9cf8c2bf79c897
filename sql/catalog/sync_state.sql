-- Whether the primary's commits wait for a walsender: async, or sync, quorum, potential.
-- Run by: run. Rights: pg_read_all_stats; without it the state is NULL, and synchronous_standby_names is
-- looked at instead. Since: PostgreSQL 14.
-- $1 process of the walsender
SELECT sync_state FROM pg_catalog.pg_stat_replication WHERE pid = $1
