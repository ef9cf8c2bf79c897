-- The tables of a publication, as the stream will name them (roots with publish_via_partition_root,
-- else leaves), one row a table.
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 14; what came with 15 (row
-- filter, column list) is read through to_jsonb, which gives NULL where it does not exist.
-- The key is that of the identity index if one is set, else the primary key.
-- membership_oid is another one when a table was taken out and put back; of a table that is published with
-- its schema, its root or all tables it is the publication's own.
-- membership is another text when the publication may have left out changes of the table for a while: when it
-- was altered (its row has another xmin), when the table or its root was taken out and put back, when a partition
-- was detached and attached again. schemas are those of the table and of its roots: published_schemas.sql.
-- Of a root with publish_via_partition_root: all partitions below it by OID, with their files (0 for one that is
-- partitioned itself), and whether each was a table before: ATTACH PARTITION writes the rows of its columns anew,
-- while those of the system columns stay as its creation wrote them. pg_partition_tree would wait for locks.
-- A right is NULL where the table or its schema was dropped since the statement began.
-- $1 publication
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind::text AS kind,
       c.relreplident::text AS identity,
       coalesce(r.oid, b.oid) AS membership_oid,
       concat_ws(' ', b.oid::text, b.xmin::text,
                 (SELECT string_agg(m.oid::text, ' ' ORDER BY m.oid) FROM pg_catalog.pg_publication_rel m
                  WHERE m.prpubid = b.oid AND m.prrelid = ANY (chain.oids)),
                 (SELECT string_agg(h.inhrelid::text || ':' || h.xmin::text, ' ' ORDER BY h.inhrelid)
                  FROM pg_catalog.pg_inherits h
                  JOIN pg_catalog.pg_class below ON below.oid = h.inhrelid AND below.relispartition
                  WHERE h.inhrelid = ANY (chain.oids))) AS membership,
       ARRAY(SELECT DISTINCT o.relnamespace FROM pg_catalog.pg_class o
             WHERE o.oid = ANY (chain.oids)) AS schemas,
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
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
       coalesce(parts.oids, '{}') AS partition_oids,
       coalesce(parts.files, '{}') AS partition_files,
       coalesce(parts.attached, '{}') AS partitions_attached
FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
LEFT JOIN pg_catalog.pg_index k
       ON k.indrelid = c.oid AND k.indisvalid
      AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END
LEFT JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
CROSS JOIN LATERAL (
       SELECT c.oid || ARRAY(SELECT up.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) up
                             WHERE up.relid <> c.oid) AS oids) chain
LEFT JOIN LATERAL (
       WITH RECURSIVE below AS (
              SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i
              WHERE i.inhparent = c.oid AND NOT i.inhdetachpending
              UNION ALL
              SELECT i.inhrelid FROM below
              JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid AND NOT i.inhdetachpending)
       SELECT array_agg(l.oid ORDER BY l.oid) AS oids,
              array_agg(l.relfilenode ORDER BY l.oid) AS files,
              array_agg(NOT EXISTS (
                     SELECT FROM pg_catalog.pg_attribute own
                     WHERE own.attrelid = l.oid AND own.attnum > 0
                       AND own.xmin::text = made.xmin::text AND own.cmin::text = made.cmin::text)
                     ORDER BY l.oid) AS attached
       FROM below
       JOIN pg_catalog.pg_class l ON l.oid = below.oid
       JOIN pg_catalog.pg_attribute made ON made.attrelid = l.oid AND made.attnum = -1) parts
       ON c.relkind = 'p'
WHERE p.pubname = $1
ORDER BY n.nspname, c.relname
