-- Takes away what setup.sql made, but the role and its rights: other tools may share them.
-- To remove them too: DROP OWNED BY {role}; DROP ROLE {role};
-- Run by: waldex teardown, as the publication's owner with REPLICATION. Since: PostgreSQL 14.
-- Statements are separated by blank lines; {...} are filled in, quoted, by src/postgres/setup.rs.

-- The slot first: from here on Postgres keeps no WAL for waldex. Fails while it is being read.
SELECT pg_catalog.pg_drop_replication_slot(slot_name)
FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot_literal}

DROP PUBLICATION IF EXISTS {publication}
