-- Who we do business with, and their money.

CREATE TABLE rate_plan (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code        text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE party (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code            text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name            text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('operator', 'reseller', 'customer', 'vendor')),
    parent_id       bigint REFERENCES party ON DELETE RESTRICT,
    plan_id         bigint REFERENCES rate_plan ON DELETE RESTRICT,
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    kill_on_suspend boolean NOT NULL DEFAULT false,
    timezone        text NOT NULL DEFAULT 'UTC',
    max_sessions    integer CHECK (max_sessions >= 0),
    max_cps         integer CHECK (max_cps >= 0),
    max_cost        numeric(28, 8) CHECK (max_cost >= 0),
    max_seconds     integer NOT NULL DEFAULT 14400 CHECK (max_seconds BETWEEN 1 AND 86400),
    dial_rules      jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX party_parent ON party (parent_id);
CREATE INDEX party_plan ON party (plan_id);
CREATE INDEX party_to_kill ON party (id) WHERE status = 'suspended' AND kill_on_suspend;

-- One row per account of the journal. A wallet is an account of kind 'wallet'; the others exist
-- once per currency and name, and their balances are sums of entries, never kept per call.
CREATE TABLE account (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      text NOT NULL CHECK (kind IN ('wallet', 'revenue', 'clearing', 'adjustment')),
    currency  text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    name      text NOT NULL,
    UNIQUE (kind, currency, name)
);

-- credited and debited only grow; available = credited - debited + credit_limit - held.
-- stamp changes with every write: a decision made on an older stamp is refused and made again.
CREATE TABLE wallet (
    id            bigint PRIMARY KEY REFERENCES account ON DELETE RESTRICT,
    party_id      bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    currency      text NOT NULL,
    credited      numeric(28, 8) NOT NULL DEFAULT 0 CHECK (credited >= 0),
    debited       numeric(28, 8) NOT NULL DEFAULT 0 CHECK (debited >= 0),
    held          numeric(28, 8) NOT NULL DEFAULT 0 CHECK (held >= 0),
    credit_limit  numeric(28, 8) NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    live          integer NOT NULL DEFAULT 0 CHECK (live >= 0),
    cps_second    bigint NOT NULL DEFAULT 0,
    cps_count     integer NOT NULL DEFAULT 0,
    parked        boolean NOT NULL DEFAULT false,
    version       bigint NOT NULL DEFAULT 0,
    stamp         bigint NOT NULL DEFAULT 0,
    UNIQUE (party_id, currency)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- The journal. Each entry moves a positive amount from debit_account to credit_account in one
-- currency, so it balances by itself. wallet_version numbers a wallet's entries without a gap.
CREATE TABLE entry (
    day             date NOT NULL,
    id              bigint GENERATED ALWAYS AS IDENTITY,
    at              timestamptz NOT NULL,
    code            text NOT NULL,
    debit_account   bigint NOT NULL,
    credit_account  bigint NOT NULL,
    amount          numeric(28, 8) NOT NULL CHECK (amount > 0),
    currency        text NOT NULL,
    wallet_id       bigint NOT NULL,
    wallet_version  bigint NOT NULL,
    balance_after   numeric(28, 8) NOT NULL,
    session_id      uuid,
    leg             smallint,
    actor           text NOT NULL DEFAULT 'charging',
    reason          text NOT NULL DEFAULT '',
    corrects        bigint,
    PRIMARY KEY (day, id),
    UNIQUE (day, wallet_id, wallet_version),
    CHECK (debit_account <> credit_account),
    CHECK (
        (code IN ('usage', 'overrun', 'late', 'withdrawal', 'adjust_down') AND debit_account = wallet_id)
        OR (code IN ('correction', 'topup', 'adjust_up') AND credit_account = wallet_id)
    )
) PARTITION BY RANGE (day);
CREATE INDEX entry_session ON entry (session_id) WHERE session_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the journal only grows: % of % is not allowed; post a correcting entry', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'TK009';
END $$;
CREATE TRIGGER entry_only_grows BEFORE UPDATE OR DELETE ON entry
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE api_key (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE,
    scopes      text[] NOT NULL,
    switch      text NOT NULL DEFAULT 'http' CHECK (switch ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);

-- Where a switch wants to be told that a call must end.
CREATE TABLE switch (
    code      text PRIMARY KEY CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    kill_url  text NOT NULL,
    secret    text NOT NULL,
    added_at  timestamptz NOT NULL DEFAULT now()
);

-- Answers to requests that carried an Idempotency-Key, stored with what they did.
CREATE TABLE idempotency (
    api_key_id  bigint NOT NULL,
    key         text NOT NULL,
    digest      text NOT NULL,
    status      integer NOT NULL,
    body        text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (api_key_id, key)
);
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
