-- Whether a table's rows always have a value in the column they are routed by, and which of its partitions (or
-- itself) log old rows without that column. What an update logs is up to the identity of the partition that holds
-- the row, not of the table that is published.
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- $1 OID of the table, $2 the column
WITH RECURSIVE parts AS (
       SELECT c.oid, c.relkind FROM pg_catalog.pg_class c WHERE c.oid = $1
       UNION ALL
       SELECT c.oid, c.relkind
       FROM parts
       JOIN pg_catalog.pg_inherits i ON i.inhparent = parts.oid AND parts.relkind = 'p'
       JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid)
SELECT coalesce((SELECT a.attnotnull FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = $1 AND a.attname = $2), false) AS is_not_null,
       ARRAY(SELECT pg_catalog.format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""'))
             FROM parts
             JOIN pg_catalog.pg_class c ON c.oid = parts.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2
             WHERE c.relreplident <> 'f'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_index k
                               WHERE k.indrelid = c.oid AND k.indisvalid AND k.indimmediate
                                 AND CASE c.relreplident
                                       WHEN 'd' THEN k.indisprimary
                                       WHEN 'i' THEN k.indisreplident
                                       ELSE false
                                     END
                                 AND a.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1]))
             ORDER BY 1) AS lacking
