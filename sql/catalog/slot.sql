-- One replication slot.
-- Run by: run, check, status. Rights: none beyond CONNECT. Since: PostgreSQL 14; the reason of an
-- invalidation came with 16 (conflicting) and 17 (invalidation_reason), failover and synced with 17;
-- NULL before. The reader's name is NULL where our role may not see it.
-- $1 slot
SELECT s.plugin::text,
       s.slot_type::text AS kind,
       s.database::text,
       s.active_pid,
       s.restart_lsn::text,
       s.confirmed_flush_lsn::text,
       s.wal_status::text,
       s.safe_wal_size,
       s.temporary,
       s.two_phase,
       (to_jsonb(s) ->> 'failover')::boolean AS failover,
       (to_jsonb(s) ->> 'synced')::boolean AS synced,
       (SELECT w.application_name FROM pg_catalog.pg_stat_replication w WHERE w.pid = s.active_pid) AS reader,
       coalesce(to_jsonb(s) ->> 'invalidation_reason',
                CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'conflict' END) AS invalidation_reason,
       pg_catalog.pg_wal_lsn_diff(
         CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
              ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn)::bigint AS retained_bytes
FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name = $1
