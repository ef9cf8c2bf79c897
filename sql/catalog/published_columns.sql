-- The columns of the published tables, in the order in which the stream carries them, and the place
-- of each in the table's key (from 1; NULL outside of it).
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 14; see published_tables.sql.
-- The operators are those of the key's index: with an empty search_path those of an extension's type
-- (citext) are found only by their schema, and text's would be taken instead, in another order.
-- Generated columns are left out as the stream leaves them out: always before 18, and from 18 on
-- unless the publication names them in pg_publication_tables.attnames.
-- $1 publication
WITH published AS MATERIALIZED (
       -- Once a table, and not once a column.
       SELECT p.schemaname, p.tablename,
              CASE jsonb_typeof(to_jsonb(p) -> 'attnames')
                WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(to_jsonb(p) -> 'attnames'))
              END AS column_names
       FROM pg_catalog.pg_publication_tables p
       WHERE p.pubname = $1)
SELECT c.oid AS relation_oid,
       a.attname::text AS name,
       a.attnum AS number,
       a.atttypid AS type_oid,
       a.atttypmod AS type_modifier,
       CASE c.relreplident
         WHEN 'f' THEN true
         WHEN 'n' THEN false
         ELSE coalesce(k.indimmediate AND place.n IS NOT NULL, false)
       END AS in_identity,
       place.n::int AS key_place,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
       ops.less, ops.equal, ops.greater
FROM published p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_index k
       ON k.indrelid = c.oid AND k.indisvalid
      AND CASE c.relreplident WHEN 'i' THEN k.indisreplident ELSE k.indisprimary END
LEFT JOIN LATERAL (
       SELECT u.n FROM unnest(k.indkey::int2[]) WITH ORDINALITY AS u (attnum, n)
       WHERE u.attnum = a.attnum AND u.n <= k.indnkeyatts) place ON true
LEFT JOIN LATERAL (
       SELECT max(o.name) FILTER (WHERE o.strategy = 1) AS less,
              max(o.name) FILTER (WHERE o.strategy = 3) AS equal,
              max(o.name) FILTER (WHERE o.strategy = 5) AS greater
       FROM pg_catalog.pg_opclass oc
       CROSS JOIN LATERAL (
              SELECT ao.amopstrategy AS strategy,
                     pg_catalog.format('OPERATOR(%I.%s)', os.nspname, op.oprname) AS name
              FROM pg_catalog.pg_amop ao
              JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr
              JOIN pg_catalog.pg_namespace os ON os.oid = op.oprnamespace
              WHERE ao.amopfamily = oc.opcfamily
                AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype) o
       WHERE place.n IS NOT NULL AND oc.oid = k.indclass[place.n - 1]) ops ON true
WHERE (p.column_names IS NULL OR a.attname::text = ANY (p.column_names))
  AND (a.attgenerated = '' OR pg_catalog.current_setting('server_version_num')::int >= 180000)
ORDER BY c.oid, a.attnum
