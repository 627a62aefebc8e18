-- Rate cards: each import makes a new version; one version is active at a time, none is changed.

CREATE TABLE rate_card (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code            text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name            text NOT NULL,
    side            text NOT NULL DEFAULT 'sell' CHECK (side IN ('sell', 'buy')),
    service         text NOT NULL DEFAULT 'voice',
    currency        text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    decimals        smallint NOT NULL DEFAULT 6 CHECK (decimals BETWEEN 0 AND 8),
    rounding        text NOT NULL DEFAULT 'half_up' CHECK (rounding IN ('half_up', 'half_even', 'up', 'down')),
    active_version  integer,
    last_version    integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rate_version (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    card_id        bigint NOT NULL REFERENCES rate_card ON DELETE RESTRICT,
    version        integer NOT NULL,
    base_version   integer,
    status         text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'retired')),
    mode           text NOT NULL CHECK (mode IN ('full', 'partial')),
    file_name      text NOT NULL DEFAULT '',
    sha256         text NOT NULL DEFAULT '',
    rows_in        integer NOT NULL,
    rows_stored    integer NOT NULL,
    rows_refused   integer NOT NULL,
    rows_repeated  integer NOT NULL DEFAULT 0,
    rows_closing   integer NOT NULL DEFAULT 0,
    row_count      integer NOT NULL,
    summary        jsonb NOT NULL DEFAULT '{}',
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    activated_at   timestamptz,
    retired_at     timestamptz,
    -- The version that was active until this one was activated: what a roll back returns to.
    replaced_version  integer,
    UNIQUE (card_id, version),
    -- No row of a sheet is lost: each was stored, refused, repeated another or closed a code.
    CHECK (rows_in = rows_stored + rows_refused + rows_repeated + rows_closing)
);
CREATE UNIQUE INDEX rate_version_one_active ON rate_version (card_id) WHERE status = 'active';

CREATE TABLE rate_row (
    version_id      bigint NOT NULL REFERENCES rate_version ON DELETE RESTRICT,
    row_no          integer NOT NULL,
    prefix          text NOT NULL,
    destination     text NOT NULL,
    first_price     numeric NOT NULL,
    next_price      numeric NOT NULL,
    first_interval  integer NOT NULL,
    next_interval   integer NOT NULL,
    connect_fee     numeric NOT NULL,
    attempt_fee     numeric NOT NULL,
    minimum         numeric NOT NULL,
    free_below      integer NOT NULL,
    surcharge       numeric NOT NULL,
    cap             numeric,
    blocked         boolean NOT NULL,
    valid_from      timestamptz,
    valid_to        timestamptz,
    PRIMARY KEY (version_id, row_no)
);
CREATE INDEX rate_row_prefix ON rate_row (version_id, prefix COLLATE "C");

CREATE TABLE rate_refusal (
    version_id  bigint NOT NULL REFERENCES rate_version ON DELETE RESTRICT,
    seq         integer NOT NULL,
    line        integer NOT NULL,
    field       text NOT NULL,
    value       text NOT NULL,
    reason      text NOT NULL,
    raw         text NOT NULL,
    PRIMARY KEY (version_id, seq)
);

-- What a version changes against its base, the unchanged rows left out; seq puts first what a
-- person should look at first. Prices are those of a call of 60 seconds, fees included.
CREATE TABLE rate_change (
    version_id   bigint NOT NULL REFERENCES rate_version ON DELETE RESTRICT,
    seq          integer NOT NULL,
    status       text NOT NULL,
    prefix       text NOT NULL,
    destination  text NOT NULL,
    effective    timestamptz,
    old_price    numeric,
    new_price    numeric,
    suspicious   boolean NOT NULL,
    PRIMARY KEY (version_id, seq)
);

CREATE TABLE rate_plan_card (
    plan_id   bigint NOT NULL REFERENCES rate_plan ON DELETE RESTRICT,
    position  smallint NOT NULL,
    card_id   bigint NOT NULL REFERENCES rate_card ON DELETE RESTRICT,
    kind      text NOT NULL DEFAULT 'plan' CHECK (kind IN ('customer', 'promotion', 'plan', 'fallback')),
    PRIMARY KEY (plan_id, position),
    UNIQUE (plan_id, card_id)
);
CREATE INDEX rate_plan_card_card ON rate_plan_card (card_id);
