-- Usage that comes as files: where from, what became of each record, and what it cost.

-- The journal learns three things: usage that was rated from records, what vendors charge us for
-- it, and taking either back.
ALTER TABLE account DROP CONSTRAINT account_kind_check;
ALTER TABLE account ADD CONSTRAINT account_kind_check
    CHECK (kind IN ('wallet', 'revenue', 'clearing', 'adjustment', 'cost'));
ALTER TABLE entry ADD COLUMN batch_id bigint;
ALTER TABLE entry DROP CONSTRAINT entry_check1;
ALTER TABLE entry ADD CONSTRAINT entry_check1 CHECK (
    (code IN ('usage', 'overrun', 'late', 'withdrawal', 'adjust_down', 'rated', 'cost_reversal')
        AND debit_account = wallet_id)
    OR (code IN ('correction', 'topup', 'adjust_up', 'reversal', 'cost') AND credit_account = wallet_id)
);
CREATE INDEX entry_batch ON entry (batch_id) WHERE batch_id IS NOT NULL;

-- How the customer ('in') or the vendor ('out') of a record is found. names are what the switch
-- calls it, addresses are IP addresses or networks; '' as switch is any switch.
CREATE TABLE trunk (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code         text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    direction    text NOT NULL CHECK (direction IN ('in', 'out')),
    party_id     bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    switch       text NOT NULL DEFAULT '',
    names        text[] NOT NULL DEFAULT '{}',
    addresses    text[] NOT NULL DEFAULT '{}',
    account      text NOT NULL DEFAULT '',
    tech_prefix  text NOT NULL DEFAULT '',
    dial_rules   jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX trunk_party ON trunk (party_id);

-- Where records come from. settings: what the kind needs (path, host, user, pattern ...);
-- mapping: how its lines are to be read, where the format does not say.
CREATE TABLE cdr_source (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code          text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    kind          text NOT NULL CHECK (kind IN ('directory', 'sftp', 'ftp', 'http', 'mysql', 'manual')),
    switch        text NOT NULL CHECK (switch ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    format        text NOT NULL,
    mapping       jsonb,
    timezone      text NOT NULL DEFAULT 'UTC',
    settings      jsonb NOT NULL DEFAULT '{}',
    secret        text NOT NULL DEFAULT '',
    enabled       boolean NOT NULL DEFAULT true,
    poll_seconds  integer NOT NULL DEFAULT 60 CHECK (poll_seconds BETWEEN 1 AND 86400),
    position      jsonb NOT NULL DEFAULT '{}',
    last_run_at   timestamptz,
    last_error    text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- A file, known by its content. offset_bytes and lines_done are where the next part begins: they
-- move on in the transaction that writes the part.
CREATE TABLE cdr_file (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id     bigint REFERENCES cdr_source ON DELETE RESTRICT,
    switch        text NOT NULL,
    name          text NOT NULL,
    sha256        text NOT NULL,
    bytes         bigint NOT NULL,
    format        text NOT NULL,
    mapping       jsonb,
    timezone      text NOT NULL DEFAULT 'UTC',
    status        text NOT NULL DEFAULT 'loading' CHECK (status IN ('loading', 'done', 'failed', 'rolled_back')),
    offset_bytes  bigint NOT NULL DEFAULT 0,
    lines_done    bigint NOT NULL DEFAULT 0,
    records       bigint NOT NULL DEFAULT 0,
    rated         bigint NOT NULL DEFAULT 0,
    matched       bigint NOT NULL DEFAULT 0,
    duplicate     bigint NOT NULL DEFAULT 0,
    quarantined   bigint NOT NULL DEFAULT 0,
    skipped       bigint NOT NULL DEFAULT 0,
    error         text NOT NULL DEFAULT '',
    actor         text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    -- No record is lost: each was rated, matched, a duplicate, or put into quarantine.
    CHECK (records = rated + matched + duplicate + quarantined)
);
CREATE UNIQUE INDEX cdr_file_once ON cdr_file (switch, sha256) WHERE status <> 'rolled_back';
CREATE INDEX cdr_file_created ON cdr_file (created_at);

-- One committed step: a part of a file, a replay, a re-rating, or the taking back of one. What a
-- batch that was taken back (undone_by) wrote counts no more, and its money was reversed.
CREATE TABLE cdr_batch (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('load', 'replay', 'rerate', 'rollback', 'late_match')),
    file_id      bigint REFERENCES cdr_file ON DELETE RESTRICT,
    switch       text NOT NULL DEFAULT '',
    first_line   bigint NOT NULL DEFAULT 0,
    last_line    bigint NOT NULL DEFAULT 0,
    records      bigint NOT NULL DEFAULT 0,
    rated        bigint NOT NULL DEFAULT 0,
    matched      bigint NOT NULL DEFAULT 0,
    duplicate    bigint NOT NULL DEFAULT 0,
    quarantined  bigint NOT NULL DEFAULT 0,
    skipped      bigint NOT NULL DEFAULT 0,
    actor        text NOT NULL DEFAULT '',
    note         text NOT NULL DEFAULT '',
    summary      jsonb NOT NULL DEFAULT '{}',
    at           timestamptz NOT NULL,
    undone_by    bigint REFERENCES cdr_batch,
    CHECK (records = rated + matched + duplicate + quarantined)
);
CREATE INDEX cdr_batch_file ON cdr_batch (file_id);

-- The records, with the customer's (sell) and the vendor's (buy) leg. 0 stands for nobody and for
-- nothing found. A row is known by its day, batch and line; it is never changed.
CREATE TABLE usage (
    day           date NOT NULL,
    batch_id      bigint NOT NULL,
    line          bigint NOT NULL,
    start_at      timestamptz NOT NULL,
    answer_at     timestamptz,
    duration_ms   bigint NOT NULL,
    call_id       text NOT NULL,
    leg           text NOT NULL,
    caller        text NOT NULL,
    called        text NOT NULL,
    service       text NOT NULL,
    customer_id   bigint NOT NULL,
    vendor_id     bigint NOT NULL,
    trunk_in      bigint NOT NULL,
    trunk_out     bigint NOT NULL,
    sip           smallint,
    q850          smallint,
    pdd_ms        integer,
    mos           smallint,
    state         text NOT NULL,
    session_id    uuid,
    destination   text NOT NULL,
    sell_wallet   bigint NOT NULL,
    sell_version  bigint NOT NULL,
    sell_row      integer NOT NULL,
    sell_prefix   text NOT NULL,
    sell_billed   integer NOT NULL,
    charge        numeric NOT NULL,
    buy_wallet    bigint NOT NULL,
    buy_version   bigint NOT NULL,
    buy_row       integer NOT NULL,
    buy_prefix    text NOT NULL,
    buy_billed    integer NOT NULL,
    cost          numeric NOT NULL
) PARTITION BY RANGE (day);
-- One block range index for every way of looking: each index costs a load about as much as this one.
-- New ranges are summarised afterwards; a range that is not yet is looked through.
CREATE INDEX usage_find ON usage USING brin (
    called text_bloom_ops, caller text_bloom_ops, call_id text_bloom_ops, batch_id, line, start_at
) WITH (pages_per_range = 32);

-- The legs of resellers between the operator and the customer; level 1 is the customer's own.
CREATE TABLE usage_leg (
    day          date NOT NULL,
    batch_id     bigint NOT NULL,
    line         bigint NOT NULL,
    level        smallint NOT NULL,
    party_id     bigint NOT NULL,
    wallet_id    bigint NOT NULL,
    version_id   bigint NOT NULL,
    row_no       integer NOT NULL,
    prefix       text NOT NULL,
    billed       integer NOT NULL,
    charge       numeric NOT NULL
) PARTITION BY RANGE (day);
CREATE INDEX usage_leg_batch ON usage_leg USING brin (batch_id, line) WITH (pages_per_range = 32);

-- What a re-rating made of a leg: 0 is the customer's, 1 the vendor's, 2 and more the resellers'
-- (level + 1). The last one whose batch was not taken back is what counts; was is what counted before.
CREATE TABLE usage_revision (
    day          date NOT NULL,
    batch_id     bigint NOT NULL,
    line         bigint NOT NULL,
    leg          smallint NOT NULL,
    by_batch     bigint NOT NULL,
    wallet_id    bigint NOT NULL,
    version_id   bigint NOT NULL,
    row_no       integer NOT NULL,
    prefix       text NOT NULL,
    destination  text NOT NULL,
    billed       integer NOT NULL,
    amount       numeric NOT NULL,
    was          numeric NOT NULL,
    PRIMARY KEY (day, batch_id, line, leg, by_batch)
) PARTITION BY RANGE (day);
CREATE INDEX usage_revision_by ON usage_revision (by_batch);

-- Sums by the hour, added to by every batch; taking back adds the negative. Reading sums them up,
-- and what is over is compacted (batch_id 0).
CREATE TABLE usage_hour (
    day            date NOT NULL,
    hour           timestamptz NOT NULL,
    batch_id       bigint NOT NULL,
    customer_id    bigint NOT NULL,
    vendor_id      bigint NOT NULL,
    trunk_in       bigint NOT NULL,
    trunk_out      bigint NOT NULL,
    service        text NOT NULL,
    destination    text NOT NULL,
    prefix         text NOT NULL,
    sell_currency  text NOT NULL,
    buy_currency   text NOT NULL,
    attempts       bigint NOT NULL,
    answers        bigint NOT NULL,
    effective      bigint NOT NULL,
    duration_ms    bigint NOT NULL,
    sell_billed    bigint NOT NULL,
    buy_billed     bigint NOT NULL,
    pdd_ms         bigint NOT NULL,
    pdd_count      bigint NOT NULL,
    revenue        numeric NOT NULL,
    cost           numeric NOT NULL
) PARTITION BY RANGE (day);
CREATE INDEX usage_hour_hour ON usage_hour (hour);

-- Which records are known: keyed 128-bit hashes (SipHash-2-4) of switch, call, leg and start, sorted,
-- a row a batch and day. matches: sorted 64-bit hashes of the session keys of those records whose
-- customer's leg was priced here, so that a session that closes later is found.
CREATE TABLE usage_key (
    day       date NOT NULL,
    switch    text NOT NULL,
    id        bigint GENERATED ALWAYS AS IDENTITY,
    batch_id  bigint NOT NULL,
    keys      bytea NOT NULL,
    matches   bytea NOT NULL,
    PRIMARY KEY (day, switch, id)
) PARTITION BY RANGE (day);
ALTER TABLE usage_key ALTER COLUMN keys SET STORAGE EXTERNAL, ALTER COLUMN matches SET STORAGE EXTERNAL;
CREATE INDEX usage_key_batch ON usage_key (batch_id);

-- The secret of those hashes: call ids are chosen by customers.
CREATE TABLE usage_secret (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret  bytea NOT NULL CHECK (octet_length(secret) = 16)
);
INSERT INTO usage_secret (secret) SELECT uuid_send(gen_random_uuid());

CREATE TABLE cdr_quarantine (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id      bigint NOT NULL REFERENCES cdr_batch ON DELETE RESTRICT,
    file_id       bigint REFERENCES cdr_file ON DELETE RESTRICT,
    switch        text NOT NULL,
    line          bigint NOT NULL,
    reason        text NOT NULL,
    field         text NOT NULL DEFAULT '',
    value         text NOT NULL DEFAULT '',
    detail        text NOT NULL,
    raw           text NOT NULL DEFAULT '',
    record        jsonb,
    status        text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'replayed', 'dropped')),
    at            timestamptz NOT NULL,
    resolved_at   timestamptz,
    resolved_by   text NOT NULL DEFAULT '',
    replay_batch  bigint REFERENCES cdr_batch
);
CREATE INDEX cdr_quarantine_open ON cdr_quarantine (reason, id) WHERE status = 'open';
CREATE INDEX cdr_quarantine_file ON cdr_quarantine (file_id);
CREATE INDEX cdr_quarantine_batch ON cdr_quarantine (batch_id);

-- Begins and ends of calls that wait for the other one.
CREATE TABLE cdr_half (
    switch   text NOT NULL,
    key      text NOT NULL,
    begins   boolean NOT NULL,
    at       timestamptz NOT NULL,
    file_id  bigint NOT NULL REFERENCES cdr_file ON DELETE RESTRICT,
    line     bigint NOT NULL,
    raw      text NOT NULL,
    record   jsonb,
    PRIMARY KEY (switch, key, begins)
);
CREATE INDEX cdr_half_file ON cdr_half (file_id);

CREATE TABLE cdr_mismatch (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,
    day          date NOT NULL,
    batch_id     bigint NOT NULL,
    file_id      bigint,
    line         bigint NOT NULL,
    call_id      text NOT NULL,
    customer_id  bigint NOT NULL,
    vendor_id    bigint NOT NULL,
    session_id   uuid,
    expected     text NOT NULL,
    found        text NOT NULL,
    detail       text NOT NULL,
    at           timestamptz NOT NULL
);
CREATE INDEX cdr_mismatch_day ON cdr_mismatch (day, kind);
CREATE INDEX cdr_mismatch_batch ON cdr_mismatch (batch_id);

-- Days that were moved out of the database.
CREATE TABLE archive_day (
    day         date PRIMARY KEY,
    uri         text NOT NULL,
    rows        bigint NOT NULL,
    bytes       bigint NOT NULL,
    charge      numeric NOT NULL,
    cost        numeric NOT NULL,
    sha256      text NOT NULL,
    at          timestamptz NOT NULL,
    purged_at   timestamptz
);

-- How far the sessions that were closed live have been compared with the records.
CREATE TABLE match_mark (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    upto   timestamptz NOT NULL
);
INSERT INTO match_mark (upto) VALUES ('-infinity');
CREATE INDEX closed_session_closed_at ON closed_session USING brin (closed_at) WITH (pages_per_range = 16);

CREATE OR REPLACE FUNCTION ensure_partitions(from_day date, days integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RETURN ensure_partitions(
        ARRAY['entry', 'closed_session', 'session_message', 'usage', 'usage_leg', 'usage_revision', 'usage_hour', 'usage_key'],
        from_day, days
    );
END $$;

-- The same for some of the tables: records may come for any day of the past.
CREATE FUNCTION ensure_partitions(parents text[], from_day date, days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    parent text;
    day date;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(7201, 1);
    FOREACH parent IN ARRAY parents LOOP
        FOR day IN SELECT from_day + n FROM generate_series(0, days - 1) AS n LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                -- Attaching waits for nobody who reads or writes the other days.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
                               child, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               parent, child, day, day + 1);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
