-- Post what a batch of records costs each wallet, all or nothing: for each of the sums one entry, in
-- their order, and the wallets' counters with them.
--
-- Locks are taken in one order everywhere: wallets by id. The codes are those of records only; a
-- positive amount goes the way of its code. A currency of '' is the wallet's own. TK010: no such
-- wallet. TK011: another currency.
CREATE FUNCTION post_batch_v1(
    batch bigint, batch_at timestamptz, who text, why text,
    s_wallet bigint[], s_code text[], s_amount numeric[], s_currency text[], s_service text[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    odd record;
    made integer;
BEGIN
    PERFORM FROM wallet w WHERE w.id = ANY (s_wallet) ORDER BY w.id FOR UPDATE;

    SELECT s.id, s.currency, w.currency AS own INTO odd
    FROM unnest(s_wallet, s_currency) AS s(id, currency) LEFT JOIN wallet w ON w.id = s.id
    WHERE w.id IS NULL OR s.currency NOT IN ('', w.currency)
    LIMIT 1;
    IF FOUND AND odd.own IS NULL THEN
        RAISE EXCEPTION 'batch % posts to wallet %, which does not exist', batch, odd.id USING ERRCODE = 'TK010';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'batch % posts % to wallet %, which is in %', batch, odd.currency, odd.id, odd.own
            USING ERRCODE = 'TK011';
    END IF;

    INSERT INTO account (kind, currency, name)
    SELECT kind, currency, service FROM (
        SELECT DISTINCT CASE WHEN s.code IN ('rated', 'reversal') THEN 'revenue' ELSE 'cost' END AS kind,
               w.currency, s.service
        FROM unnest(s_wallet, s_code, s_service) AS s(wallet, code, service) JOIN wallet w ON w.id = s.wallet
    ) AS other
    WHERE NOT EXISTS (
        SELECT FROM account a WHERE a.kind = other.kind AND a.currency = other.currency AND a.name = other.service
    )
    ORDER BY kind, currency, service
    ON CONFLICT DO NOTHING;

    WITH line AS (
        SELECT s.n, s.wallet, s.code, s.amount, w.currency, a.id AS other, s.code IN ('reversal', 'cost') AS up,
               w.version AS version_before, w.credited - w.debited AS balance_before,
               CASE WHEN s.code IN ('reversal', 'cost') THEN s.amount ELSE -s.amount END AS effect
        FROM unnest(s_wallet, s_code, s_amount, s_service) WITH ORDINALITY AS s(wallet, code, amount, service, n)
        JOIN wallet w ON w.id = s.wallet
        JOIN account a ON a.currency = w.currency AND a.name = s.service
            AND a.kind = CASE WHEN s.code IN ('rated', 'reversal') THEN 'revenue' ELSE 'cost' END
        WHERE w.id = ANY (s_wallet)
    ), placed AS (
        SELECT line.*, version_before + row_number() OVER own AS version,
               balance_before + sum(effect) OVER own AS balance
        FROM line WINDOW own AS (PARTITION BY wallet ORDER BY n)
    ), entered AS (
        INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,
                           wallet_version, balance_after, actor, reason, batch_id)
        SELECT (batch_at AT TIME ZONE 'UTC')::date, batch_at, code, CASE WHEN up THEN other ELSE wallet END,
               CASE WHEN up THEN wallet ELSE other END, amount, currency, wallet, version, balance, who, why, batch
        FROM placed ORDER BY placed.wallet, placed.version
        RETURNING wallet_id
    ), total AS (
        SELECT wallet, coalesce(sum(amount) FILTER (WHERE up), 0) AS credit,
               coalesce(sum(amount) FILTER (WHERE NOT up), 0) AS debit, count(*) AS entries
        FROM line GROUP BY 1
    ), changed AS (
        UPDATE wallet w
        SET credited = w.credited + t.credit, debited = w.debited + t.debit, version = w.version + t.entries,
            stamp = w.stamp + 1
        FROM total t WHERE w.id = ANY (s_wallet) AND w.id = t.wallet
        RETURNING w.party_id
    ), told AS (
        -- Processes that keep a wallet's state in mind read it again.
        SELECT pg_notify('tollkeeper', 'party:' || party_id) FROM (SELECT DISTINCT party_id FROM changed) AS party
    )
    SELECT (SELECT count(*) FROM entered) + 0 * (SELECT count(*) FROM told) INTO made;
    RETURN made;
END $$;

-- What the days that were moved out of the database held, by batch: so that the books can still be
-- proved. by_batch is 0, or the re-rating that changed the legs; side is 'sell' or 'buy'.
CREATE TABLE archive_batch (
    day       date NOT NULL,
    batch_id  bigint NOT NULL,
    rated     bigint NOT NULL,
    matched   bigint NOT NULL,
    PRIMARY KEY (day, batch_id)
);
CREATE TABLE archive_leg (
    day        date NOT NULL,
    batch_id   bigint NOT NULL,
    by_batch   bigint NOT NULL,
    wallet_id  bigint NOT NULL,
    side       text NOT NULL CHECK (side IN ('sell', 'buy')),
    amount     numeric NOT NULL,
    PRIMARY KEY (day, batch_id, by_batch, wallet_id, side)
);
