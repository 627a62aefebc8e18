-- What the tree, the services and the price plans stand on.

-- --- parties ---------------------------------------------------------------------------------------
-- A user is an extension that spends its nearest customer's money; a card is a calling card with a
-- wallet of its own. frozen: nothing but top-ups. low_sessions calls at once are allowed while less
-- than low_balance is available. overcommit: what a reseller's children may be given together, as a
-- share of the reseller's own money (1 = no more than it has); none: not looked at. rate_change: a call
-- that is up keeps its rate (pin), or goes on at the new one from the moment of the change (split).
ALTER TABLE party DROP CONSTRAINT party_kind_check;
ALTER TABLE party ADD CONSTRAINT party_kind_check
    CHECK (kind IN ('operator', 'reseller', 'customer', 'vendor', 'user', 'card'));
ALTER TABLE party DROP CONSTRAINT party_status_check;
ALTER TABLE party ADD CONSTRAINT party_status_check CHECK (status IN ('active', 'suspended', 'frozen'));
ALTER TABLE party
    ADD COLUMN billing text NOT NULL DEFAULT 'postpaid' CHECK (billing IN ('prepaid', 'postpaid')),
    ADD COLUMN low_balance numeric(28, 8),
    ADD COLUMN low_sessions integer CHECK (low_sessions >= 0),
    ADD COLUMN overcommit numeric(8, 4) CHECK (overcommit >= 0),
    ADD COLUMN rate_change text NOT NULL DEFAULT 'pin' CHECK (rate_change IN ('pin', 'split'));

-- Who stands above whom, at any distance; depth 0 is the party itself.
CREATE TABLE party_above (
    party_id     bigint NOT NULL REFERENCES party ON DELETE CASCADE,
    ancestor_id  bigint NOT NULL REFERENCES party ON DELETE CASCADE,
    depth        integer NOT NULL CHECK (depth >= 0),
    PRIMARY KEY (party_id, ancestor_id)
);
CREATE INDEX party_above_ancestor ON party_above (ancestor_id, party_id);

-- Where a party stood, and since when; the last row of a party is where it stands.
CREATE TABLE party_move (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    parent_id   bigint REFERENCES party ON DELETE RESTRICT,
    at          timestamptz NOT NULL DEFAULT now(),
    actor       text NOT NULL DEFAULT '',
    reason      text NOT NULL DEFAULT ''
);
CREATE INDEX party_move_party ON party_move (party_id, at);

WITH RECURSIVE above AS (
    SELECT id AS party_id, id AS ancestor_id, 0 AS depth FROM party
    UNION ALL
    SELECT above.party_id, p.parent_id, above.depth + 1
    FROM above JOIN party p ON p.id = above.ancestor_id
    WHERE p.parent_id IS NOT NULL
)
INSERT INTO party_above SELECT party_id, ancestor_id, depth FROM above;
INSERT INTO party_move (party_id, parent_id, at) SELECT id, parent_id, created_at FROM party;

-- The closure follows the tree by itself, whoever changes it, with the owner's rights. A cycle is
-- refused (TK020). Two moves at once cannot make one together, nor a move tear off a party that is just
-- being made: each statement after the lock sees what was committed before it was had.
CREATE FUNCTION follow_parent() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM pg_advisory_xact_lock_shared(7202, 1);
        INSERT INTO party_above (party_id, ancestor_id, depth) VALUES (NEW.id, NEW.id, 0);
        IF NEW.parent_id IS NOT NULL THEN
            INSERT INTO party_above (party_id, ancestor_id, depth)
            SELECT NEW.id, a.ancestor_id, a.depth + 1 FROM party_above a WHERE a.party_id = NEW.parent_id;
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.parent_id IS NOT DISTINCT FROM OLD.parent_id THEN
        RETURN NEW;
    END IF;
    PERFORM pg_advisory_xact_lock(7202, 1);
    IF EXISTS (
        SELECT FROM party_above a WHERE a.party_id = NEW.parent_id AND a.ancestor_id = NEW.id
    ) THEN
        RAISE EXCEPTION 'party % cannot stand below itself', NEW.code USING ERRCODE = 'TK020';
    END IF;
    DELETE FROM party_above a
    USING party_above below
    WHERE below.ancestor_id = NEW.id AND a.party_id = below.party_id AND a.ancestor_id IN (
        SELECT up.ancestor_id FROM party_above up WHERE up.party_id = NEW.id AND up.depth > 0
    );
    IF NEW.parent_id IS NOT NULL THEN
        INSERT INTO party_above (party_id, ancestor_id, depth)
        SELECT below.party_id, up.ancestor_id, below.depth + up.depth + 1
        FROM party_above below, party_above up
        WHERE below.ancestor_id = NEW.id AND up.party_id = NEW.parent_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER party_follow_parent AFTER INSERT OR UPDATE OF parent_id ON party
    FOR EACH ROW EXECUTE FUNCTION follow_parent();

-- A key with a party sees and manages that party's subtree only; without one it is the operator's.
ALTER TABLE api_key ADD COLUMN party_id bigint REFERENCES party ON DELETE RESTRICT;

-- --- money -----------------------------------------------------------------------------------------
-- credit_limit is what counts on every call. It follows from the terms: 0 for a prepaid party, else
-- agreed_limit, and temp_limit more until temp_until. daily_cap and monthly_cap bound what is spent in
-- the party's day and month; alert_at are the percents of a cap or limit at which somebody is told.
ALTER TABLE wallet
    ADD COLUMN agreed_limit numeric(28, 8) NOT NULL DEFAULT 0 CHECK (agreed_limit >= 0),
    ADD COLUMN temp_limit   numeric(28, 8) NOT NULL DEFAULT 0 CHECK (temp_limit >= 0),
    ADD COLUMN temp_until   timestamptz,
    ADD COLUMN daily_cap    numeric(28, 8) CHECK (daily_cap >= 0),
    ADD COLUMN monthly_cap  numeric(28, 8) CHECK (monthly_cap >= 0),
    ADD COLUMN alert_at     smallint[] NOT NULL DEFAULT '{}';
UPDATE wallet SET agreed_limit = credit_limit;

ALTER TABLE account DROP CONSTRAINT account_kind_check;
ALTER TABLE account ADD CONSTRAINT account_kind_check CHECK (kind IN (
    'wallet', 'revenue', 'clearing', 'adjustment', 'cost', 'promotion', 'transfer', 'commission'
));
ALTER TABLE entry DROP CONSTRAINT entry_check1;
ALTER TABLE entry ADD CONSTRAINT entry_check1 CHECK (
    (code IN ('usage', 'overrun', 'late', 'withdrawal', 'adjust_down', 'rated', 'cost_reversal',
              'bonus_expired', 'transfer_out')
        AND debit_account = wallet_id)
    OR (code IN ('correction', 'topup', 'adjust_up', 'reversal', 'cost', 'rebate', 'refund', 'bonus', 'voucher',
                 'transfer_in', 'commission')
        AND credit_account = wallet_id)
);

-- Running counts that decide with the money: the volume of a tier, the units of a package, what is
-- spent in a day or month, the calls of an extension. One row per period. used: settled; held: set
-- aside for what is up; base: money at list prices behind 'used', for discounts on all of it; cap:
-- the most that used + held may be. stamp changes with every write, as a wallet's does.
CREATE TABLE meter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    kind        text NOT NULL CHECK (kind IN ('tier', 'package', 'spend', 'calls')),
    code        text NOT NULL,
    unit        text NOT NULL DEFAULT '',
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz,
    used        numeric(28, 8) NOT NULL DEFAULT 0,
    held        numeric(28, 8) NOT NULL DEFAULT 0,
    base        numeric NOT NULL DEFAULT 0,
    cap         numeric(28, 8),
    stamp       bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (party_id, kind, code, begins_at)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- --- prices ----------------------------------------------------------------------------------------
-- per: how many units a price is for: 60 seconds of voice, 1 message or item, 1000000 or 1048576 bytes.
-- key: what a row's prefix is compared with: the number called, or the network (MCC and MNC).
-- A cost-plus card has no rows of its own: its prices are those of cost_card, raised.
-- owner_id: whose card or plan it is; none is the operator's.
ALTER TABLE rate_card
    ADD COLUMN per             bigint NOT NULL DEFAULT 60 CHECK (per > 0),
    ADD COLUMN key             text NOT NULL DEFAULT 'called' CHECK (key IN ('called', 'network')),
    ADD COLUMN owner_id        bigint REFERENCES party ON DELETE RESTRICT,
    ADD COLUMN cost_card_id    bigint REFERENCES rate_card ON DELETE RESTRICT,
    ADD COLUMN markup_percent  numeric(12, 6) NOT NULL DEFAULT 0,
    ADD COLUMN markup          numeric(28, 8) NOT NULL DEFAULT 0,
    ADD COLUMN floor_price     numeric(28, 8),
    ADD COLUMN ceiling_price   numeric(28, 8);
UPDATE rate_card SET per = 1 WHERE service <> 'voice';
ALTER TABLE rate_plan
    ADD COLUMN owner_id  bigint REFERENCES party ON DELETE RESTRICT,
    ADD COLUMN terms     jsonb NOT NULL DEFAULT '{}';
-- when: under which conditions the card counts (jurisdiction, origin, caller's number, hours).
ALTER TABLE rate_plan_card ADD COLUMN conditions jsonb NOT NULL DEFAULT '{}';

-- Destinations under one name (C1), and hours of the week in a time zone.
CREATE TABLE zone (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name      text NOT NULL DEFAULT '',
    owner_id  bigint REFERENCES party ON DELETE RESTRICT,
    prefixes  text[] NOT NULL
);
CREATE TABLE time_profile (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name      text NOT NULL DEFAULT '',
    owner_id  bigint REFERENCES party ON DELETE RESTRICT,
    timezone  text NOT NULL,
    windows   jsonb NOT NULL
);

-- One unit of base costs rate units of quote, from that day on until the next.
CREATE TABLE fx_rate (
    base       text NOT NULL CHECK (base ~ '^[A-Z]{3}$'),
    quote      text NOT NULL CHECK (quote ~ '^[A-Z]{3}$'),
    day        date NOT NULL,
    rate       numeric(30, 12) NOT NULL CHECK (rate > 0),
    source     text NOT NULL,
    loaded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (base, quote, day),
    CHECK (base <> quote)
);

-- Where a North American office code lies: for prices by jurisdiction.
CREATE TABLE npanxx (
    npanxx  text PRIMARY KEY CHECK (npanxx ~ '^[2-9][0-9]{2}[2-9][0-9]{2}$'),
    state   text NOT NULL,
    lata    text NOT NULL DEFAULT '',
    ocn     text NOT NULL DEFAULT ''
);

-- --- isolation -------------------------------------------------------------------------------------
-- Whoever works for a party does so in this role, with the party named in the setting
-- tollkeeper.party; the policies below it then show its own subtree and nothing else. Roles belong to
-- the whole server: another database, or another process at this moment, may have made it already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tollkeeper_party') THEN
        CREATE ROLE tollkeeper_party NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'this user may not make the role that parties are shown their own in; as an administrator run:'
        ' CREATE ROLE tollkeeper_party NOLOGIN; GRANT tollkeeper_party TO %;', quote_ident(CURRENT_USER);
END $$;
DO $$
BEGIN
    IF NOT pg_has_role(CURRENT_USER, 'tollkeeper_party', 'MEMBER') THEN
        EXECUTE format('GRANT tollkeeper_party TO %I', CURRENT_USER);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'this user may not act as the role tollkeeper_party; as an administrator run:'
        ' GRANT tollkeeper_party TO %;', quote_ident(CURRENT_USER);
END $$;

CREATE FUNCTION own_party() RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('tollkeeper.party', true), '')::bigint $$;

GRANT SELECT ON party_above TO tollkeeper_party;
ALTER TABLE party_above ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON party_above TO tollkeeper_party USING (ancestor_id = own_party());

-- Show and let change only rows whose column names a party of the own subtree. Rights on the table
-- (SELECT, INSERT ...) are granted to tollkeeper_party apart from this, each only where it is needed.
CREATE FUNCTION isolate(target regclass, party_column text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format(
        'CREATE POLICY own ON %s TO tollkeeper_party'
        ' USING (%I IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party()))'
        ' WITH CHECK (%I IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party()))',
        target, party_column, party_column);
END $$;
