-- Sessions: the live ones in one small hot table, the closed ones in a partition per day.

CREATE TABLE live_session (
    key         text PRIMARY KEY,
    id          uuid NOT NULL,
    party_id    bigint NOT NULL,
    opened_day  date NOT NULL,
    expires_at  timestamptz NOT NULL,
    version     integer NOT NULL,
    body        json NOT NULL
) WITH (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX live_session_expires ON live_session (expires_at);

-- opened_day, not the day of closing: so the unique key finds a repeat of an authorisation
-- wherever its session stands. charge is the customer's leg.
CREATE TABLE closed_session (
    opened_day  date NOT NULL,
    id          uuid NOT NULL,
    key         text NOT NULL,
    party_id    bigint NOT NULL,
    closed_at   timestamptz NOT NULL,
    ending      text NOT NULL CHECK (ending IN ('refused', 'settled', 'released', 'expired')),
    charge      numeric(28, 8) NOT NULL,
    version     integer NOT NULL,
    body        json NOT NULL,
    PRIMARY KEY (id, opened_day),
    UNIQUE (key, opened_day)
) PARTITION BY RANGE (opened_day);

-- Every message that changed a session, with the answer it got: the memory behind repeats,
-- and what 'explain' shows.
CREATE TABLE session_message (
    day         date NOT NULL,
    session_id  uuid NOT NULL,
    version     integer NOT NULL,
    message_id  text NOT NULL,
    digest      text NOT NULL,
    at          timestamptz NOT NULL,
    request     json NOT NULL,
    reply       json NOT NULL,
    PRIMARY KEY (day, session_id, version)
) PARTITION BY RANGE (day);

-- What the outside world must be told; written with the change that causes it, sent afterwards
-- at least once.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    kind         text NOT NULL,
    session_id   uuid,
    detail       text NOT NULL DEFAULT '',
    payload      jsonb NOT NULL DEFAULT '{}',
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL,
    done_at      timestamptz,
    last_error   text NOT NULL DEFAULT ''
);
CREATE INDEX outbox_due ON outbox (next_at) WHERE done_at IS NULL;

-- Create the day partitions from from_day on, for the given number of days. Safe to repeat and
-- to race: the advisory lock makes one caller wait for the other.
CREATE FUNCTION ensure_partitions(from_day date, days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    parent text;
    day date;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(7201, 1);
    FOREACH parent IN ARRAY ARRAY['entry', 'closed_session', 'session_message'] LOOP
        FOR day IN SELECT from_day + n FROM generate_series(0, days - 1) AS n LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               child, parent, day, day + 1);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
