-- What a publication publishes.
-- Run by: run, check, at start and at every reconnect. Rights: none beyond CONNECT. Since: PostgreSQL 13.
-- $1 publication
SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables
FROM pg_catalog.pg_publication
WHERE pubname = $1
