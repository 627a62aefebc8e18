-- Write one batch of decisions, all or nothing: what charge_batch_v1 does, and meters with it.
--
-- The decisions were made on wallets and meters with the given stamps and sessions with the given
-- versions; if any of them has changed since, nothing is written (TK001, TK002) and the caller decides
-- again on what stands now. TK003 is the last guard: holds that the money does not cover, or more on a
-- meter than its cap.
-- Locks are taken in one order everywhere: wallets by id, meters by id, then sessions.
-- Where no session has to do with a meter, their arrays are empty and cost nothing.
-- Every row is named by "= ANY (keys)" beside the join: plans are made once, maybe while the tables
-- are still empty, and this holds them to the index whichever side of the join they begin with.
-- charge_batch_v1 stays: while an installation is brought up to date, processes of the version before
-- still write by it. It counts no meters, and those processes know of none.

-- As with a wallet: what is set aside is never less than nothing.
ALTER TABLE meter ADD CONSTRAINT meter_held_check CHECK (held >= 0);

CREATE FUNCTION charge_batch_v2(
    batch_at timestamptz,
    w_id bigint[], w_stamp bigint[], w_credit numeric[], w_debit numeric[], w_held numeric[],
    w_live integer[], w_cps_second bigint[], w_cps_count integer[], w_entries integer[], w_guarded boolean[],
    o_id uuid[], o_key text[], o_party bigint[], o_day date[], o_expires timestamptz[], o_body json,
    c_key text[], c_version integer[], c_expires timestamptz[], c_body json,
    x_id uuid[], x_version integer[], x_key text[], x_party bigint[], x_day date[], x_ending text[],
    x_charge numeric[], x_body json,
    l_id uuid[], l_day date[], l_version integer[], l_charge numeric[], l_body json,
    m_day date[], m_session uuid[], m_version integer[], m_message text[], m_digest text[],
    m_request json, m_reply json,
    e_wallet bigint[], e_debit bigint[], e_credit bigint[], e_code text[], e_amount numeric[],
    e_currency text[], e_version bigint[], e_balance numeric[], e_session uuid[], e_leg smallint[],
    b_kind text[], b_session uuid[], b_detail text[], b_payload json,
    n_id bigint[], n_stamp bigint[], n_used numeric[], n_held numeric[], n_base numeric[], n_guarded boolean[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n integer;
    today date := (batch_at AT TIME ZONE 'UTC')::date;
BEGIN
    IF cardinality(w_id) > 0 THEN
        SELECT count(*) INTO n FROM (
            SELECT w.stamp, g.stamp AS seen
            FROM unnest(w_id, w_stamp) AS g(id, stamp) JOIN wallet w ON w.id = g.id
            WHERE w.id = ANY (w_id)
            ORDER BY w.id FOR UPDATE OF w
        ) AS locked WHERE locked.stamp = locked.seen;
        IF n <> cardinality(w_id) THEN
            RAISE EXCEPTION 'a wallet has changed' USING ERRCODE = 'TK001';
        END IF;
    END IF;

    IF cardinality(n_id) > 0 THEN
        SELECT count(*) INTO n FROM (
            SELECT m.stamp, g.stamp AS seen
            FROM unnest(n_id, n_stamp) AS g(id, stamp) JOIN meter m ON m.id = g.id
            WHERE m.id = ANY (n_id)
            ORDER BY m.id FOR UPDATE OF m
        ) AS locked WHERE locked.stamp = locked.seen;
        IF n <> cardinality(n_id) THEN
            RAISE EXCEPTION 'a meter has changed' USING ERRCODE = 'TK001';
        END IF;
    END IF;

    IF cardinality(o_id) > 0 THEN
        INSERT INTO live_session (id, key, party_id, opened_day, expires_at, version, body)
        SELECT id, key, party, day, expires, 1, body
        FROM ROWS FROM (unnest(o_id, o_key, o_party, o_day, o_expires), json_array_elements(o_body)) AS o(id, key, party, day, expires, body)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(o_id) OR EXISTS (
            SELECT FROM closed_session s WHERE s.key = ANY (o_key) AND s.opened_day IN (today, today - 1)
        ) THEN
            RAISE EXCEPTION 'a session exists already' USING ERRCODE = 'TK002';
        END IF;
    END IF;

    IF cardinality(c_key) > 0 THEN
        UPDATE live_session s
        SET expires_at = c.expires, version = c.version + 1, body = c.body
        FROM ROWS FROM (unnest(c_key, c_version, c_expires), json_array_elements(c_body)) AS c(key, version, expires, body)
        WHERE s.key = ANY (c_key) AND s.key = c.key AND s.version = c.version;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(c_key) THEN
            RAISE EXCEPTION 'a session has changed' USING ERRCODE = 'TK002';
        END IF;
    END IF;

    IF cardinality(x_id) > 0 THEN
        -- Version 0 marks what opens and closes at once (a refusal, a one-shot charge): never live, but
        -- put there for the length of this transaction, so that the unique key makes another node wait
        -- that would admit the same id at this moment.
        IF 0 = ANY (x_version) THEN
            INSERT INTO live_session (key, id, party_id, opened_day, expires_at, version, body)
            SELECT key, id, party, day, batch_at, 0, body
            FROM ROWS FROM (unnest(x_key, x_id, x_party, x_day, x_version), json_array_elements(x_body))
                AS x(key, id, party, day, version, body)
            WHERE version = 0
            ON CONFLICT DO NOTHING;
        END IF;
        DELETE FROM live_session s USING unnest(x_key, x_version) AS x(key, version)
        WHERE s.key = ANY (x_key) AND s.key = x.key AND s.version = x.version;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(x_key) THEN
            RAISE EXCEPTION 'a session has changed' USING ERRCODE = 'TK002';
        END IF;
        IF 0 = ANY (x_version) AND EXISTS (
            SELECT FROM closed_session s WHERE s.key = ANY (x_key) AND s.opened_day IN (today, today - 1)
        ) THEN
            RAISE EXCEPTION 'a session exists already' USING ERRCODE = 'TK002';
        END IF;
        INSERT INTO closed_session (opened_day, id, key, party_id, closed_at, ending, charge, version, body)
        SELECT day, id, key, party, batch_at, ending, charge, version + 1, body
        FROM ROWS FROM (
            unnest(x_day, x_id, x_key, x_party, x_ending, x_charge, x_version), json_array_elements(x_body)
        )
            AS x(day, id, key, party, ending, charge, version, body);
    END IF;

    IF cardinality(l_id) > 0 THEN
        UPDATE closed_session s
        SET charge = l.charge, version = l.version + 1, body = l.body
        FROM ROWS FROM (unnest(l_day, l_id, l_version, l_charge), json_array_elements(l_body)) AS l(day, id, version, charge, body)
        WHERE s.id = ANY (l_id) AND s.opened_day = l.day AND s.id = l.id AND s.version = l.version;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(l_id) THEN
            RAISE EXCEPTION 'a closed session has changed' USING ERRCODE = 'TK002';
        END IF;
    END IF;

    INSERT INTO session_message (day, session_id, version, message_id, digest, at, request, reply)
    SELECT day, session, version, message, digest, batch_at, request, reply
    FROM ROWS FROM (
        unnest(m_day, m_session, m_version, m_message, m_digest),
        json_array_elements(m_request), json_array_elements(m_reply)
    )
        AS m(day, session, version, message, digest, request, reply);

    IF cardinality(e_wallet) > 0 THEN
        INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency,
                           wallet_id, wallet_version, balance_after, session_id, leg)
        SELECT today, batch_at, code, debit, credit, amount, currency,
               wallet, version, balance, session, leg
        FROM unnest(e_code, e_debit, e_credit, e_amount, e_currency, e_wallet, e_version, e_balance, e_session, e_leg)
            AS e(code, debit, credit, amount, currency, wallet, version, balance, session, leg);
    END IF;

    IF cardinality(b_kind) > 0 THEN
        INSERT INTO outbox (at, kind, session_id, detail, payload, next_at)
        SELECT batch_at, kind, session, detail, payload::jsonb, batch_at
        FROM ROWS FROM (unnest(b_kind, b_session, b_detail), json_array_elements(b_payload)) AS b(kind, session, detail, payload);
    END IF;

    IF cardinality(w_id) > 0 THEN
        WITH changed AS (
            UPDATE wallet w
            SET credited = w.credited + g.credit, debited = w.debited + g.debit, held = w.held + g.held,
                live = w.live + g.live, cps_second = g.cps_second, cps_count = g.cps_count,
                version = w.version + g.entries, stamp = w.stamp + 1
            FROM unnest(w_id, w_credit, w_debit, w_held, w_live, w_cps_second, w_cps_count, w_entries, w_guarded)
                AS g(id, credit, debit, held, live, cps_second, cps_count, entries, guarded)
            WHERE w.id = ANY (w_id) AND w.id = g.id
            RETURNING g.guarded, w.credited - w.debited + w.credit_limit - w.held AS available
        )
        SELECT count(*) INTO n FROM changed WHERE guarded AND available < 0;
        IF n > 0 THEN
            RAISE EXCEPTION 'holds beyond the money of a wallet' USING ERRCODE = 'TK003';
        END IF;
    END IF;

    IF cardinality(n_id) > 0 THEN
        WITH changed AS (
            UPDATE meter m
            SET used = m.used + g.used, held = m.held + g.held, base = m.base + g.base, stamp = m.stamp + 1
            FROM unnest(n_id, n_used, n_held, n_base, n_guarded) AS g(id, used, held, base, guarded)
            WHERE m.id = ANY (n_id) AND m.id = g.id
            RETURNING g.guarded, m.used + m.held > m.cap AS over
        )
        SELECT count(*) INTO n FROM changed WHERE guarded AND over;
        IF n > 0 THEN
            RAISE EXCEPTION 'more on a meter than its cap' USING ERRCODE = 'TK003';
        END IF;
    END IF;
END $$;
