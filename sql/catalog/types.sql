-- The types with the given OIDs, and the types they are made of: elements of arrays, bases of
-- domains, subtypes of ranges.
-- Run by: run, plan. Rights: none beyond CONNECT. Since: PostgreSQL 14.
-- $1 OIDs
WITH RECURSIVE wanted (oid) AS (
       SELECT unnest($1::oid[])
     UNION
       SELECT part.oid
       FROM wanted w
       JOIN pg_catalog.pg_type t ON t.oid = w.oid
       LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
       CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem), (r.rngsubtype)) AS part (oid)
       WHERE part.oid <> 0
)
SELECT t.oid,
       n.nspname::text AS schema,
       t.typname::text AS name,
       t.typtype::text AS kind,
       t.typcategory::text AS category,
       t.typbasetype AS base,
       CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0::oid END AS element,
       t.typdelim::text AS delimiter
FROM wanted w
JOIN pg_catalog.pg_type t ON t.oid = w.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
ORDER BY t.oid
