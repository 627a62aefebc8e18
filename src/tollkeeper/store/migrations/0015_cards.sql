-- Calling cards: batches, cards with the hashes of their PINs, and callers who need no PIN.

-- owner_id: who stands above the cards and, if it is a reseller, pays what is on them; none is the
-- operator. expires_at: until when a card can be used first; from then on it is good for valid_days.
-- fee_amount is taken every fee_days after the first use. on_expiry: what is left goes back to whom it
-- came from, or stays on the card, where nobody can use it.
CREATE TABLE card_batch (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code         text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$'),
    owner_id     bigint REFERENCES party ON DELETE RESTRICT,
    plan_id      bigint NOT NULL REFERENCES rate_plan ON DELETE RESTRICT,
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount       numeric(28, 8) NOT NULL CHECK (amount > 0),
    valid_days   integer NOT NULL CHECK (valid_days > 0),
    expires_at   timestamptz NOT NULL,
    fee_amount   numeric(28, 8) CHECK (fee_amount > 0),
    fee_days     integer CHECK (fee_days > 0),
    max_seconds  integer NOT NULL CHECK (max_seconds > 0),
    pin_digits   smallint NOT NULL CHECK (pin_digits BETWEEN 10 AND 16),
    on_expiry    text NOT NULL CHECK (on_expiry IN ('return', 'keep')),
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'blocked')),
    created_at   timestamptz NOT NULL,
    created_by   text NOT NULL,
    CHECK ((fee_amount IS NULL) = (fee_days IS NULL))
);

-- pin_hash: HMAC-SHA256 under the key of voucher_secret, of the PIN behind a word that no voucher's code
-- begins with. unsettled: money may have to go back; looked at from look_at on. fees: how many were due.
CREATE TABLE calling_card (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id       bigint NOT NULL UNIQUE REFERENCES party ON DELETE RESTRICT,
    batch_id       bigint NOT NULL REFERENCES card_batch ON DELETE RESTRICT,
    serial         integer NOT NULL CHECK (serial > 0),
    pin_hash       bytea NOT NULL UNIQUE,
    status         text NOT NULL DEFAULT 'unused'
                   CHECK (status IN ('unused', 'active', 'expired', 'blocked', 'used_up')),
    first_used_at  timestamptz,
    expires_at     timestamptz NOT NULL,
    next_fee_at    timestamptz,
    fees           integer NOT NULL DEFAULT 0,
    unsettled      boolean NOT NULL DEFAULT false,
    look_at        timestamptz,
    UNIQUE (batch_id, serial)
);
CREATE INDEX calling_card_expiring ON calling_card (expires_at) WHERE status <> 'expired';
CREATE INDEX calling_card_fee ON calling_card (next_fee_at) WHERE status = 'active' AND next_fee_at IS NOT NULL;
CREATE INDEX calling_card_unsettled ON calling_card (look_at) WHERE unsettled;

-- Who calls from this number uses this card without its PIN; once for each seller of cards.
CREATE TABLE card_caller (
    card_id   bigint NOT NULL REFERENCES calling_card ON DELETE RESTRICT,
    owner_id  bigint REFERENCES party ON DELETE RESTRICT,
    caller    text NOT NULL CHECK (caller ~ '^[0-9]{3,15}$'),
    added_at  timestamptz NOT NULL,
    PRIMARY KEY (card_id, caller)
);
CREATE UNIQUE INDEX card_caller_caller ON card_caller (caller, coalesce(owner_id, 0));

-- Wrong PINs only: the key they came by, and the caller behind it.
CREATE TABLE pin_attempt (
    subject  text NOT NULL,
    at       timestamptz NOT NULL
);
CREATE INDEX pin_attempt_subject ON pin_attempt (subject, at);

-- --- isolation -------------------------------------------------------------------------------------
-- Never a PIN's hash; what is changed is checked and written by the services with the operator's rights.
SELECT isolate('card_batch', 'owner_id');
SELECT isolate('calling_card', 'party_id');
SELECT isolate('card_caller', 'owner_id');
GRANT SELECT ON card_batch, card_caller TO tollkeeper_party;
GRANT SELECT (id, party_id, batch_id, serial, status, first_used_at, expires_at, next_fee_at, fees)
    ON calling_card TO tollkeeper_party;
