-- What puts whole schemas into a publication: another row after one was taken out and put back.
-- Run by: run, check. Rights: none beyond CONNECT. Since: PostgreSQL 15, which brought it.
-- $1 publication
SELECT s.oid, s.pnnspid AS schema_oid
FROM pg_catalog.pg_publication_namespace s
JOIN pg_catalog.pg_publication b ON b.oid = s.pnpubid
WHERE b.pubname = $1
ORDER BY s.oid
