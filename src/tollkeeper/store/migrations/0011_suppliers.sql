-- Outside suppliers (eSIM platforms, HLR providers, DID suppliers, SMSCs) and what is bought from them.

-- settings: operations, items, timeouts; see docs/how-to/connect-a-supplier.md. The secret is put into
-- headers and bodies where they say {secret}; it is never shown.
CREATE TABLE supplier (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code        text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    kind        text NOT NULL CHECK (kind IN ('esim', 'lookup', 'did', 'sms')),
    base_url    text NOT NULL,
    secret      text NOT NULL DEFAULT '',
    settings    jsonb NOT NULL,
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- One order. The row is there before anything else happens: before money is held, and before the
-- supplier is asked. request_id is the buyer's own name of it, order_id ours towards the supplier and
-- the id of the session (purchases/<order_id>) that holds its money until hold_until.
--   new       nothing is known to be held          held      money is held, the supplier knows nothing
--   ordered   the supplier was or is being asked   unknown   asked, and what became of it is not known
--   done, refused, cancelled: decided; settled_at says since when the money follows the decision.
-- next_at: when somebody is to go on with it; none: nobody, or a human.
CREATE TABLE purchase (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id     bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    request_id   text NOT NULL,
    order_id     text NOT NULL UNIQUE,
    service      text NOT NULL,
    item         text NOT NULL,
    called       text NOT NULL,
    status       text NOT NULL DEFAULT 'new' CHECK (status IN (
                     'new', 'held', 'ordered', 'unknown', 'done', 'refused', 'cancelled')),
    reason       text NOT NULL DEFAULT '',
    charge       numeric(28, 8),
    currency     text NOT NULL DEFAULT '',
    supplier_id  bigint NOT NULL REFERENCES supplier ON DELETE RESTRICT,
    detail       text NOT NULL DEFAULT '',
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz,
    hold_until   timestamptz,
    request      jsonb NOT NULL DEFAULT '{}',
    answer       jsonb NOT NULL DEFAULT '{}',
    actor        text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL,
    ordered_at   timestamptz,
    ended_at     timestamptz,
    settled_at   timestamptz,
    UNIQUE (party_id, request_id)
);
CREATE INDEX purchase_due ON purchase (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX purchase_open ON purchase (hold_until) WHERE status IN ('held', 'ordered', 'unknown');
SELECT isolate('purchase', 'party_id');
-- Not who supplies it, nor what passed between us and them.
GRANT SELECT (id, party_id, request_id, order_id, service, item, called, status, reason, charge, currency,
              created_at, ended_at, settled_at) ON purchase TO tollkeeper_party;

-- What is known of numbers. It says nothing of who asked.
CREATE TABLE lookup_cache (
    kind        text NOT NULL,
    number      text NOT NULL,
    answer      jsonb NOT NULL,
    at          timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (kind, number)
);
CREATE INDEX lookup_cache_expires ON lookup_cache (expires_at);

-- One question: charged first (new, charged), then answered (done), or failed and refunded. service is
-- what it is charged as ('' for nothing), answer what was known already or what the supplier said.
CREATE TABLE lookup_query (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id     bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    request_id   text NOT NULL,
    charge_id    text NOT NULL UNIQUE,
    kind         text NOT NULL,
    number       text NOT NULL,
    service      text NOT NULL,
    cached       boolean NOT NULL,
    status       text NOT NULL DEFAULT 'new' CHECK (status IN (
                     'new', 'charged', 'done', 'not_found', 'failed', 'refused')),
    reason       text NOT NULL DEFAULT '',
    answer       jsonb NOT NULL DEFAULT '{}',
    charge       numeric(28, 8),
    currency     text NOT NULL DEFAULT '',
    refund       boolean NOT NULL DEFAULT false,
    supplier_id  bigint NOT NULL REFERENCES supplier ON DELETE RESTRICT,
    next_at      timestamptz,
    created_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    UNIQUE (party_id, request_id)
);
CREATE INDEX lookup_query_due ON lookup_query (next_at) WHERE next_at IS NOT NULL;
SELECT isolate('lookup_query', 'party_id');
GRANT SELECT (id, party_id, request_id, kind, number, cached, status, reason, answer, charge, currency,
              created_at, ended_at) ON lookup_query TO tollkeeper_party;

-- A profile that was bought. data_bytes: volume that comes with it (none: pay as you go); it becomes a
-- package meter with the activation. days: how long it may be used from then on.
CREATE TABLE esim_profile (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    iccid            text NOT NULL UNIQUE,
    party_id         bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    purchase_id      bigint NOT NULL UNIQUE REFERENCES purchase ON DELETE RESTRICT,
    item             text NOT NULL,
    status           text NOT NULL DEFAULT 'ordered' CHECK (status IN (
                         'ordered', 'active', 'expired', 'released')),
    activation_code  text NOT NULL DEFAULT '',
    data_bytes       bigint CHECK (data_bytes > 0),
    package          text NOT NULL DEFAULT '',
    days             integer NOT NULL CHECK (days > 0),
    meter_id         bigint REFERENCES meter ON DELETE RESTRICT,
    created_at       timestamptz NOT NULL,
    activated_at     timestamptz,
    expires_at       timestamptz,
    released_at      timestamptz,
    next_at          timestamptz,
    supplier_id      bigint NOT NULL REFERENCES supplier ON DELETE RESTRICT
);
CREATE INDEX esim_profile_party ON esim_profile (party_id, id);
CREATE INDEX esim_profile_due ON esim_profile (next_at) WHERE next_at IS NOT NULL;
SELECT isolate('esim_profile', 'party_id');
GRANT SELECT (id, iccid, party_id, purchase_id, item, status, activation_code, data_bytes, package, days, meter_id,
              created_at, activated_at, expires_at, released_at) ON esim_profile TO tollkeeper_party;
