-- What the server is, how it is set up, and what our role may do.
-- Run by: run, check, status. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- idle_replication_slot_timeout came with 18, synchronized_standby_slots with 17.
-- rds_replication: on Amazon RDS and Aurora the right to replicate comes with that role, and rolreplication stays false.
-- pg_stat_replication shows every walsender to every role, of others' without their names.
SELECT pg_catalog.current_setting('server_version_num')::int AS version_num,
       pg_catalog.current_setting('server_encoding') AS server_encoding,
       pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.current_setting('max_replication_slots')::int AS slots_max,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int AS slots_used,
       pg_catalog.current_setting('max_wal_senders')::int AS senders_max,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int AS senders_used,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_flush_lsn() END::text AS flush_lsn,
       pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
       ARRAY(SELECT DISTINCT coalesce(application_name, '...')
             FROM pg_catalog.pg_stat_replication) AS connected_standbys,
       pg_catalog.current_setting('max_slot_wal_keep_size') AS slot_wal_keep,
       coalesce(pg_catalog.current_setting('idle_replication_slot_timeout', true), '0') AS idle_slot_timeout,
       ARRAY(SELECT slot_name::text FROM pg_catalog.pg_replication_slots
             WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name) AS physical_slots,
       coalesce(pg_catalog.current_setting('synchronized_standby_slots', true), '') AS synchronized_slots,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication w
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s
                          WHERE s.active_pid = w.pid AND s.slot_type = 'logical'))::int AS standbys_count,
       pg_catalog.current_database()::text AS database,
       r.rolname::text AS role_name,
       r.rolreplication AS may_replicate,
       (SELECT pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER') FROM pg_catalog.pg_roles g
        WHERE g.rolname = 'rds_replication') AS is_granted_replication,
       r.rolsuper AS is_superuser,
       r.rolbypassrls AS bypasses_row_security
FROM pg_catalog.pg_roles r
WHERE r.rolname = current_user
