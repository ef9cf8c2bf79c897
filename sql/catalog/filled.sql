-- Whether any of these tables has ever had a row in its file of now.
-- Run by: run, for partitions that were attached. Rights: none beyond CONNECT. Since: PostgreSQL 14. Waits for
-- whoever has locked one of them exclusively.
-- $1 OIDs
SELECT coalesce(bool_or(pg_catalog.pg_relation_size(o) > 0), false) AS is_filled
FROM unnest($1::oid[]) o
