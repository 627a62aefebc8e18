-- Telephone numbers that are sold (DIDs), and fees that come back every day, week or month.

-- item: the digits by which rate cards price the number; empty: the number itself.
--   available  anybody may order it            ordered   somebody does at this moment
--   assigned   somebody has it                 quarantined   nobody may, until quarantine_until
--   released   not ours any more: given back to the supplier, or never delivered
-- quarantine_days: how long nobody gets it after it was released; grace_days: for how long an unpaid
-- monthly fee is tried again before it is released.
CREATE TABLE did (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number            text NOT NULL UNIQUE CHECK (number ~ '^[1-9][0-9]{2,14}$'),
    country           text NOT NULL DEFAULT '' CHECK (country ~ '^([A-Z]{2})?$'),
    kind              text NOT NULL DEFAULT 'geographic' CHECK (kind IN ('geographic', 'mobile', 'toll-free')),
    item              text NOT NULL DEFAULT '' CHECK (item ~ '^[0-9]{0,15}$'),
    status            text NOT NULL DEFAULT 'available' CHECK (status IN (
                          'available', 'ordered', 'assigned', 'quarantined', 'released')),
    party_id          bigint REFERENCES party ON DELETE RESTRICT,
    supplier_id       bigint REFERENCES supplier ON DELETE RESTRICT,
    purchase_id       bigint REFERENCES purchase ON DELETE RESTRICT,
    destination       text NOT NULL DEFAULT '',
    quarantine_days   integer NOT NULL DEFAULT 30 CHECK (quarantine_days >= 0),
    grace_days        integer NOT NULL DEFAULT 7 CHECK (grace_days >= 0),
    created_at        timestamptz NOT NULL,
    assigned_at       timestamptz,
    released_at       timestamptz,
    quarantine_until  timestamptz,
    CHECK ((status IN ('ordered', 'assigned')) = (party_id IS NOT NULL)),
    CHECK (status <> 'quarantined' OR quarantine_until IS NOT NULL)
);
CREATE INDEX did_prefix ON did (number text_pattern_ops);
CREATE INDEX did_party ON did (party_id, id) WHERE party_id IS NOT NULL;
CREATE INDEX did_purchase ON did (purchase_id) WHERE purchase_id IS NOT NULL;
CREATE INDEX did_quarantine ON did (quarantine_until) WHERE status = 'quarantined';
-- A party sees what it and those below it have, and what it may order.
ALTER TABLE did ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON did FOR SELECT TO tollkeeper_party USING (
    status = 'available' OR party_id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
);
-- Not who supplies it.
GRANT SELECT (id, number, country, kind, item, status, party_id, destination, created_at, assigned_at)
    ON did TO tollkeeper_party;

CREATE TABLE did_event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    did_id    bigint NOT NULL REFERENCES did ON DELETE RESTRICT,
    at        timestamptz NOT NULL,
    event     text NOT NULL,
    party_id  bigint REFERENCES party ON DELETE RESTRICT,
    detail    text NOT NULL DEFAULT '',
    actor     text NOT NULL DEFAULT ''
);
CREATE INDEX did_event_did ON did_event (did_id, id);
SELECT isolate('did_event', 'party_id');
GRANT SELECT (id, did_id, at, event, party_id, detail) ON did_event TO tollkeeper_party;

-- A fee of one party. Its price is amount, or (none) what the party's plan says for service and called.
-- A term is a local day, week or month of the party: its first and last one are shorter where the fee
-- begins or ends in the middle. All days are the party's; ends are the first day that is not in it.
-- paid_until: the first day that is not paid. term_from and term_to: what is just being charged; who
-- finds them charges again, under the same key, and goes on. next_at: when somebody is to look; none:
-- nobody. ended: by its day; lapsed: it was not paid for grace_days.
CREATE TABLE recurring_fee (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL,
    party_id       bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    service        text NOT NULL,
    called         text NOT NULL,
    amount         numeric(28, 8) CHECK (amount > 0),
    currency       text NOT NULL DEFAULT '',
    period         text NOT NULL CHECK (period IN ('once', 'day', 'week', 'month')),
    begins_on      date NOT NULL,
    ends_on        date,
    prorate        boolean NOT NULL,
    grace_days     integer NOT NULL CHECK (grace_days >= 0),
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'ended', 'lapsed')),
    paid_until     date NOT NULL,
    next_at        timestamptz,
    term_from      date,
    term_to        date,
    attempts       integer NOT NULL DEFAULT 0,
    failing_since  timestamptz,
    reason         text NOT NULL DEFAULT '',
    did_id         bigint REFERENCES did ON DELETE RESTRICT,
    request        text UNIQUE,
    actor          text NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL,
    CHECK ((amount IS NULL) = (currency = '')),
    CHECK ((term_from IS NULL) = (term_to IS NULL) AND term_to > term_from)
);
CREATE INDEX recurring_fee_due ON recurring_fee (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX recurring_fee_party ON recurring_fee (party_id, id);
CREATE INDEX recurring_fee_did ON recurring_fee (did_id) WHERE did_id IS NOT NULL;
SELECT isolate('recurring_fee', 'party_id');
GRANT SELECT ON recurring_fee TO tollkeeper_party;

-- One order of a number. pending: it is being paid, or its supplier is being asked; whoever finds it goes on.
CREATE TABLE did_order (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    did_id      bigint NOT NULL REFERENCES did ON DELETE RESTRICT,
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    request_id  text NOT NULL,
    fee_id      bigint NOT NULL REFERENCES recurring_fee ON DELETE RESTRICT,
    supplier    text NOT NULL DEFAULT '',
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done', 'refused')),
    reason      text NOT NULL DEFAULT '',
    charge      numeric(28, 8),
    currency    text NOT NULL DEFAULT '',
    actor       text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    UNIQUE (party_id, request_id)
);
CREATE INDEX did_order_pending ON did_order (id) WHERE status = 'pending';
SELECT isolate('did_order', 'party_id');
GRANT SELECT (id, did_id, party_id, request_id, fee_id, status, reason, charge, currency, created_at, ended_at)
    ON did_order TO tollkeeper_party;

-- The least that a party pays in a local month, as its plan said when the month (or its part of it)
-- began. open: the month is on; due: the shortfall is being charged; met: nothing was short; lapsed: it
-- was not paid for long. session_id: the charge, which is no use of the month in which it is made.
CREATE TABLE commitment (
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),
    from_on     date NOT NULL,
    plan        text NOT NULL,
    agreed      numeric(28, 8) NOT NULL CHECK (agreed > 0),
    currency    text NOT NULL,
    status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'due', 'charged', 'met', 'lapsed')),
    amount      numeric(28, 8),
    spent       numeric(28, 8),
    shortfall   numeric(28, 8),
    attempts    integer NOT NULL DEFAULT 0,
    reason      text NOT NULL DEFAULT '',
    next_at     timestamptz NOT NULL,
    session_id  uuid,
    PRIMARY KEY (party_id, month)
);
CREATE INDEX commitment_due ON commitment (next_at) WHERE status IN ('open', 'due');
SELECT isolate('commitment', 'party_id');
GRANT SELECT ON commitment TO tollkeeper_party;
