-- The tables of a publication, as the stream will name them (roots with publish_via_partition_root,
-- else leaves), one row a table.
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 14; what came with 15 (row
-- filter, column list) is read through to_jsonb, which gives NULL where it does not exist.
-- The key is that of the identity index if one is set, else the primary key.
-- membership_oid is another one when a table was taken out and put back; of a table that is published with
-- its schema, its root or all tables it is the publication's own.
-- $1 publication
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind::text AS kind,
       c.relreplident::text AS identity,
       coalesce(r.oid, b.oid) AS membership_oid,
       pg_catalog.row_security_active(c.oid) AS has_row_security,
       coalesce((SELECT array_agg(a.attname::text ORDER BY u.n)
                 FROM unnest(k.indkey::int2[]) WITH ORDINALITY AS u (attnum, n)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum
                 WHERE u.n <= k.indnkeyatts), '{}') AS key_names,
       coalesce(NOT k.indimmediate, false) AS key_is_deferrable,
       to_jsonb(p) ->> 'rowfilter' AS row_filter,
       coalesce(jsonb_typeof(to_jsonb(r) -> 'prattrs') = 'string'
                OR jsonb_typeof(to_jsonb(r) -> 'prattrs') = 'array', false) AS has_column_list,
       pg_catalog.has_table_privilege(c.oid, 'SELECT')
         OR coalesce((SELECT bool_and(pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))
                      FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                        AND coalesce(to_jsonb(p) -> 'attnames' @> to_jsonb(a.attname::text), true)),
                     false) AS may_select,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema
FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
LEFT JOIN pg_catalog.pg_index k
       ON k.indrelid = c.oid AND k.indisvalid
      AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
WHERE p.pubname = $1
ORDER BY n.nspname, c.relname
