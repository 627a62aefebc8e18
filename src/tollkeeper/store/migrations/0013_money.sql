-- Money beside calls: terms that change while calls are up, vouchers, bonus credit, transfers, alerts.

-- --- limits ----------------------------------------------------------------------------------------
-- The limit that counts, by its terms. temp_limit stands until a job takes it back at temp_until.
CREATE FUNCTION limit_of(billing text, agreed numeric, temporary numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$ SELECT CASE billing WHEN 'prepaid' THEN 0 ELSE agreed + temporary END $$;

-- limit_peak: the highest limit that was ever in force. What was held or spent under a higher limit
-- stays so when the limit falls; the proof of the books must know. The trigger does not fire on calls,
-- which leave the limit alone.
ALTER TABLE wallet ADD COLUMN limit_peak numeric(28, 8) NOT NULL DEFAULT 0;
UPDATE wallet SET limit_peak = credit_limit WHERE credit_limit > 0;
CREATE FUNCTION note_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.limit_peak := greatest(NEW.limit_peak, NEW.credit_limit);
    RETURN NEW;
END $$;
CREATE TRIGGER wallet_limit_peak BEFORE INSERT OR UPDATE OF credit_limit ON wallet
    FOR EACH ROW EXECUTE FUNCTION note_limit();
CREATE INDEX wallet_temporary ON wallet (temp_until) WHERE temp_until IS NOT NULL;
CREATE INDEX wallet_alerting ON wallet (id) WHERE alert_at <> '{}';

-- Who was told what: one row for a percent of a limit (kind 'limit') or of a cap (the meter's code) in
-- a period. The row of a limit goes when the use has fallen well below, so that it is told again.
-- No foreign key: checking it would lock the wallet, and calls would wait for whoever tells.
CREATE TABLE wallet_alert (
    wallet_id  bigint NOT NULL,
    kind       text NOT NULL,
    begins_at  timestamptz NOT NULL,
    percent    smallint NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (wallet_id, kind, begins_at, percent)
);

DROP INDEX party_to_kill;
CREATE INDEX party_to_kill ON party (id)
    WHERE status = 'frozen' OR (status = 'suspended' AND kill_on_suspend);

-- --- vouchers --------------------------------------------------------------------------------------
-- The key of all codes' hashes. One for the whole installation, so that a code is found by one look
-- into an index however many batches there are; apart from the vouchers, so that their table alone
-- tells nobody which of the 10^15 possible codes are good.
CREATE TABLE voucher_secret (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    secret    bytea NOT NULL
);
INSERT INTO voucher_secret (secret) VALUES (
    decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
);

-- party_id: the reseller whose money the vouchers are paid from; none is the operator's.
CREATE TABLE voucher_batch (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code         text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    party_id     bigint REFERENCES party ON DELETE RESTRICT,
    kind         text NOT NULL CHECK (kind IN ('money', 'bonus')),
    amount       numeric(28, 8) NOT NULL CHECK (amount > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_from   timestamptz NOT NULL,
    valid_to     timestamptz NOT NULL CHECK (valid_to > valid_from),
    bonus_days   integer CHECK (bonus_days > 0),
    bonus_order  text NOT NULL DEFAULT 'bonus_first' CHECK (bonus_order IN ('bonus_first', 'own_first')),
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'blocked')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text NOT NULL,
    CHECK ((kind = 'bonus') = (bonus_days IS NOT NULL))
);
CREATE TABLE voucher (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id     bigint NOT NULL REFERENCES voucher_batch ON DELETE RESTRICT,
    hash         bytea NOT NULL UNIQUE,
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'redeemed', 'blocked')),
    redeemed_by  bigint REFERENCES party ON DELETE RESTRICT,
    redeemed_at  timestamptz,
    wallet_id    bigint REFERENCES wallet ON DELETE RESTRICT,
    CHECK ((status = 'redeemed') = (redeemed_by IS NOT NULL AND redeemed_at IS NOT NULL AND wallet_id IS NOT NULL))
);
CREATE INDEX voucher_batch_status ON voucher (batch_id, status);

-- Wrong codes only: who tried, whichever of the two it is counted for. (subject 'party:7', 'key:3')
CREATE TABLE voucher_attempt (
    subject  text NOT NULL,
    at       timestamptz NOT NULL
);
CREATE INDEX voucher_attempt_subject ON voucher_attempt (subject, at);

-- --- bonus -----------------------------------------------------------------------------------------
-- A lot of bonus money. left_over: what was left of it when the wallet had debited seen_debited and its
-- last entry was seen_version; what calls have used since follows from the wallet, not from here.
CREATE TABLE bonus (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wallet_id     bigint NOT NULL REFERENCES wallet ON DELETE RESTRICT,
    party_id      bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    amount        numeric(28, 8) NOT NULL CHECK (amount > 0),
    use_order     text NOT NULL CHECK (use_order IN ('bonus_first', 'own_first')),
    granted_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL CHECK (expires_at > granted_at),
    left_over     numeric(28, 8) NOT NULL CHECK (left_over >= 0 AND left_over <= amount),
    seen_debited  numeric(28, 8) NOT NULL,
    seen_version  bigint NOT NULL,
    look_at       timestamptz NOT NULL,
    closed_at     timestamptz,
    actor         text NOT NULL,
    reason        text NOT NULL
);
CREATE INDEX bonus_open ON bonus (wallet_id) WHERE closed_at IS NULL;
CREATE INDEX bonus_look ON bonus (look_at) WHERE closed_at IS NULL;
-- What calls got back: the few entries that raise a wallet without money having come in.
CREATE INDEX entry_given_back ON entry (wallet_id, wallet_version)
    WHERE code IN ('correction', 'refund', 'rebate', 'reversal');

-- --- transfers -------------------------------------------------------------------------------------
CREATE TABLE transfer (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    from_wallet  bigint NOT NULL REFERENCES wallet ON DELETE RESTRICT,
    to_wallet    bigint NOT NULL REFERENCES wallet ON DELETE RESTRICT CHECK (to_wallet <> from_wallet),
    from_party   bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    to_party     bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    amount       numeric(28, 8) NOT NULL CHECK (amount > 0),
    currency     text NOT NULL,
    actor        text NOT NULL,
    reason       text NOT NULL
);
CREATE INDEX transfer_from ON transfer (from_party, id);
CREATE INDEX transfer_to ON transfer (to_party, id);

-- --- isolation -------------------------------------------------------------------------------------
SELECT isolate('voucher_batch', 'party_id');
SELECT isolate('bonus', 'party_id');
GRANT SELECT ON voucher_batch, bonus TO tollkeeper_party;
GRANT UPDATE (cap, stamp) ON meter TO tollkeeper_party;
GRANT UPDATE (left_over, seen_debited, seen_version) ON bonus TO tollkeeper_party;
-- A batch's vouchers are seen as counts only, and by the batches that are seen; never a hash.
GRANT SELECT (id, batch_id, status, redeemed_at) ON voucher TO tollkeeper_party;
ALTER TABLE voucher ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON voucher TO tollkeeper_party USING (batch_id IN (SELECT id FROM voucher_batch));
GRANT SELECT ON transfer TO tollkeeper_party;
ALTER TABLE transfer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON transfer TO tollkeeper_party USING (
    from_party IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
    OR to_party IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
);
