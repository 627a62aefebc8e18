-- Records of a day that was archived may still come: a day has as many parts as it was archived
-- times. files: what lies in the part's folder, each with its bytes and SHA-256.
ALTER TABLE archive_day DROP CONSTRAINT archive_day_pkey;
ALTER TABLE archive_day ADD COLUMN part integer NOT NULL DEFAULT 1 CHECK (part > 0);
ALTER TABLE archive_day ADD COLUMN files jsonb NOT NULL DEFAULT '{}';
ALTER TABLE archive_day ADD PRIMARY KEY (day, part);

-- Folders of files that nobody reads: half-written ones, and those of days that were purged. A
-- folder is named here before the first file is written to it, so none is forgotten by a crash.
CREATE TABLE archive_trash (
    uri  text PRIMARY KEY,
    at   timestamptz NOT NULL
);

-- Days before this one were purged, their keys too: whether a record of such a day is already
-- known cannot be told any more, so none is taken.
CREATE TABLE usage_purged (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    before  date NOT NULL
);
INSERT INTO usage_purged (before) VALUES ('2000-01-01');

-- Readers leave out what was taken back, which is seldom much.
CREATE INDEX cdr_batch_undone ON cdr_batch (id) WHERE undone_by IS NOT NULL;
