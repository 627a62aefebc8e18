-- A call that a switch reported by a protocol, and that could not be charged, is put into quarantine as
-- a record of a file would be. told names the report, so that the same one is put there once.
ALTER TABLE cdr_quarantine ADD COLUMN told text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX cdr_quarantine_told ON cdr_quarantine (told) WHERE told <> '';
