-- What is not part of a published table's stream, and what would make the application's own writes fail.
-- Run by: run, check. Rights: none beyond CONNECT; takes no lock on the tables. Since: PostgreSQL 14; row filter
-- and column list came with 15 and are read through to_jsonb.
-- filter_outside: columns of the row filter that the replica identity does not cover. list_too_short: whether
-- the identity is FULL and the column list leaves out columns. large: whether values are stored out of line.
-- $1 publication
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       ARRAY(SELECT a.attname::text
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND NOT a.attisdropped AND c.relreplident <> 'f'
               AND a.attnum IN (SELECT (m.parts)[1]::int
                                FROM regexp_matches(to_jsonb(r) ->> 'prqual', ':varattno (\d+)', 'g') AS m (parts))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_index k
                               WHERE k.indrelid = c.oid AND k.indisvalid
                                 AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END
                                 AND a.attnum = ANY (k.indkey::int2[]))
             ORDER BY a.attnum) AS filter_outside,
       coalesce(c.relreplident = 'f' AND to_jsonb(r) ->> 'prattrs' IS NOT NULL
                AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                              AND NOT coalesce(to_jsonb(p) -> 'attnames' @> to_jsonb(a.attname::text), true)),
                false) AS list_too_short,
       ARRAY(SELECT a.attname::text
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''
               AND to_jsonb(r) ->> 'prattrs' IS NULL
               AND NOT (a.attgenerated = 's' AND coalesce(to_jsonb(b) ->> 'pubgencols' = 's', false))
             ORDER BY a.attnum) AS generated,
       c.relreplident <> 'f' AND EXISTS (
         SELECT FROM pg_catalog.pg_class l
         JOIN pg_catalog.pg_class t ON t.oid = l.reltoastrelid
         WHERE l.oid IN (
                 WITH RECURSIVE tree AS (
                        SELECT c.oid
                        UNION ALL
                        SELECT below.oid FROM tree
                        JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending
                        JOIN pg_catalog.pg_class below ON below.oid = i.inhrelid AND below.relispartition)
                 SELECT oid FROM tree)
           AND (t.relpages > 0 OR pg_catalog.pg_stat_get_tuples_inserted(t.oid) > 0)) AS large
FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
WHERE p.pubname = $1
ORDER BY n.nspname, c.relname
