-- What waldex needs in the database, with least rights. Each statement can be run again.
-- Run by: waldex setup, as a superuser (or a role that owns the tables, has CREATEROLE and
-- REPLICATION). Since: PostgreSQL 14. Statements are separated by blank lines.
-- {...} are filled in, quoted, by src/postgres/setup.rs.

-- The role: may log in and replicate, and owns nothing. REPLICATION lets it read all data of the
-- server through a slot. Give it a password with: \password {role}
-- (On Amazon RDS and Aurora the right comes with the role rds_replication, which is granted instead.)
DO {role_block}

-- What the initial load reads.
GRANT USAGE ON SCHEMA {schemas} TO {role}

GRANT SELECT ON TABLE {tables} TO {role}

-- The publication, with all tables. It must exist before the slot: what happened before it existed cannot
-- be decoded.
-- Partitions are published as their root.
DO {publication_block}

-- The slot keeps WAL from now on until it is read or dropped; max_slot_wal_keep_size bounds it.
-- From 17 on standbys may keep a copy of it (failover => true), so that it outlives a failover.
-- Waits for every transaction that runs now.
DO {slot_block}
