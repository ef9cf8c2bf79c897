-- The types with the given OIDs, and the types they are made of: elements of arrays, bases of
-- domains, subtypes of ranges and multiranges.
-- Run by: run, plan. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- A range's subtype never changes; an extension's type is known by the extension, not by its name alone.
-- $1 OIDs
WITH RECURSIVE ranges (oid, subtype) AS (
       SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range
     UNION ALL
       SELECT rngmultitypid, rngsubtype FROM pg_catalog.pg_range
), wanted (oid) AS (
       SELECT unnest($1::oid[])
     UNION
       SELECT part.oid
       FROM wanted w
       JOIN pg_catalog.pg_type t ON t.oid = w.oid
       LEFT JOIN ranges r ON r.oid = t.oid
       CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem), (r.subtype)) AS part (oid)
       WHERE part.oid <> 0
)
SELECT t.oid,
       n.nspname::text AS schema,
       t.typname::text AS name,
       t.typtype::text AS kind,
       t.typcategory::text AS category,
       t.typbasetype AS base,
       CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0::oid END AS element,
       t.typdelim::text AS delimiter,
       coalesce(r.subtype, 0::oid) AS subtype,
       t.typname = 'hstore' AND EXISTS (
              SELECT FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
              WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid
                AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
                AND e.extname = 'hstore') AS is_hstore
FROM wanted w
JOIN pg_catalog.pg_type t ON t.oid = w.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN ranges r ON r.oid = t.oid
ORDER BY t.oid
