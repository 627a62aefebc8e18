-- name: moment
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: patience
-- The reading may take long, and a cursor is read to its end.
SELECT set_config('statement_timeout', '0', true),
       set_config('idle_in_transaction_session_timeout', '0', true),
       set_config('cursor_tuple_fraction', '1', true),
       set_config('work_mem', '64MB', true)

-- name: counts
SELECT (SELECT count(*) FROM wallet) AS wallets,
       (SELECT count(*) FROM entry) AS entries,
       (SELECT count(*) FROM live_session) AS live_sessions,
       (SELECT count(*) FROM closed_session) AS closed_sessions,
       (SELECT count(*) FROM session_message) AS messages,
       now() AS at

-- name: wallets
WITH line AS (
    SELECT wallet_id, wallet_version, balance_after, code, amount,
           CASE WHEN credit_account = wallet_id THEN amount ELSE -amount END AS effect,
           lag(wallet_version, 1, 0::bigint) OVER chain AS version_before,
           lag(balance_after, 1, 0::numeric) OVER chain AS balance_before
    FROM entry
    WINDOW chain AS (PARTITION BY wallet_id ORDER BY wallet_version, day, id)
), total AS (
    SELECT wallet_id,
           sum(effect) FILTER (WHERE effect > 0) AS credited_sum,
           -sum(effect) FILTER (WHERE effect < 0) AS debited_sum,
           sum(amount) FILTER (WHERE code = ANY (%s::text[])) AS on_credit_sum,
           count(*) AS entries,
           count(*) FILTER (WHERE wallet_version <> version_before) AS versions,
           max(wallet_version) AS version_max,
           count(*) FILTER (WHERE balance_after <> balance_before + effect) AS wrong_balances,
           (array_agg(balance_after ORDER BY wallet_version DESC))[1] AS last_balance
    FROM line GROUP BY wallet_id
), hold AS (
    SELECT (leg->>'wallet_id')::bigint AS wallet_id, count(*) AS live_count,
           sum(coalesce((leg->>'held')::numeric, 0)) AS held_sum
    FROM live_session, json_array_elements(body->'legs') AS leg
    GROUP BY 1
)
SELECT w.id, w.party_id, w.currency, w.credited, w.debited, w.held, w.credit_limit, w.live, w.cps_second,
       w.cps_count, w.parked, w.version, w.stamp, w.limit_peak,
       coalesce(credited_sum, 0) AS credited_sum, coalesce(debited_sum, 0) AS debited_sum,
       coalesce(on_credit_sum, 0) AS on_credit_sum, coalesce(entries, 0) AS entries,
       coalesce(versions, 0) AS versions, coalesce(version_max, 0) AS version_max,
       coalesce(wrong_balances, 0) AS wrong_balances, last_balance,
       coalesce(held_sum, 0) AS held_sum, coalesce(live_count, 0) AS live_count
FROM wallet w
LEFT JOIN total ON total.wallet_id = w.id
LEFT JOIN hold ON hold.wallet_id = w.id
ORDER BY w.id

-- name: postings
SELECT e.code, coalesce(d.kind, 'none') AS debit_kind, coalesce(c.kind, 'none') AS credit_kind,
       coalesce(d.currency, '') AS debit_currency, coalesce(c.currency, '') AS credit_currency, e.currency,
       count(*) AS count, min(e.amount) AS smallest
FROM entry e LEFT JOIN account d ON d.id = e.debit_account LEFT JOIN account c ON c.id = e.credit_account
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 6, 1, 2, 3

-- name: wallets_of_posting
SELECT DISTINCT e.wallet_id
FROM entry e LEFT JOIN account d ON d.id = e.debit_account LEFT JOIN account c ON c.id = e.credit_account
WHERE e.code = %s AND e.currency = %s
  AND coalesce(d.kind, 'none') = %s AND coalesce(c.kind, 'none') = %s
  AND coalesce(d.currency, '') = %s AND coalesce(c.currency, '') = %s
LIMIT 1000

-- name: books
WITH side AS (
    SELECT credit_account AS account_id, amount FROM entry
    UNION ALL
    SELECT debit_account, -amount FROM entry
), other AS (
    SELECT a.currency, a.kind, sum(s.amount) AS balance
    FROM side s JOIN account a ON a.id = s.account_id WHERE a.kind <> 'wallet'
    GROUP BY 1, 2
), own AS (
    SELECT currency, sum(credited - debited) AS balance FROM wallet GROUP BY 1
)
SELECT coalesce(own.currency, o.currency) AS currency, coalesce(own.balance, 0) AS wallets,
       coalesce(o.revenue, 0) AS revenue, coalesce(o.clearing, 0) AS clearing,
       coalesce(o.adjustment, 0) AS adjustment, coalesce(o.cost, 0) AS cost,
       coalesce(o.promotion, 0) AS promotion, coalesce(o.transfer, 0) AS transfer,
       coalesce(o.commission, 0) AS commission, coalesce(o.balance, 0) AS others
FROM own FULL JOIN (
    SELECT currency, sum(balance) FILTER (WHERE kind = 'revenue') AS revenue,
           sum(balance) FILTER (WHERE kind = 'clearing') AS clearing,
           sum(balance) FILTER (WHERE kind = 'adjustment') AS adjustment,
           sum(balance) FILTER (WHERE kind = 'cost') AS cost,
           sum(balance) FILTER (WHERE kind = 'promotion') AS promotion,
           sum(balance) FILTER (WHERE kind = 'transfer') AS transfer,
           sum(balance) FILTER (WHERE kind = 'commission') AS commission,
           sum(balance) AS balance
    FROM other GROUP BY 1
) AS o ON o.currency = own.currency
ORDER BY 1

-- name: live
SELECT key, id::text AS id, party_id, opened_day, version, expires_at, body::text AS body FROM live_session

-- name: closed
WITH leg AS (
    SELECT session_id, coalesce(leg, -1) AS leg, wallet_id, code, sum(amount) AS amount, count(*) AS entries
    FROM entry WHERE session_id IS NOT NULL
    GROUP BY 1, 2, 3, 4
), own AS (
    SELECT session_id, array_agg(leg) AS legs, array_agg(wallet_id) AS wallets, array_agg(code) AS codes,
           array_agg(amount) AS amounts, array_agg(entries) AS counts
    FROM leg GROUP BY 1
)
SELECT s.key, s.id::text AS id, s.party_id, s.opened_day, s.version, s.ending, s.charge, s.body::text AS body,
       own.legs, own.wallets, own.codes, own.amounts, own.counts
FROM closed_session s LEFT JOIN own ON own.session_id = s.id

-- name: meters
-- No session can name a meter before its row is there, nor before its period: if closed sessions are
-- kept since then, all of its sessions are.
SELECT m.id, m.party_id, m.used, m.held, m.base, m.cap, m.stamp, m.kind, p.code || '/' || m.kind || '/' || m.code AS name,
       coalesce((greatest(m.begins_at, m.created_at) AT TIME ZONE 'UTC')::date >= oldest.day, false) AS whole
FROM meter m JOIN party p ON p.id = m.party_id, (
    SELECT min(to_date(right(child.relname, 8), 'YYYYMMDD')) AS day
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = 'closed_session'::regclass
) AS oldest
ORDER BY m.id

-- name: strays
SELECT e.session_id::text AS session_id, e.wallet_id, count(*) AS entries, sum(e.amount) AS amount
FROM entry e
WHERE e.session_id IS NOT NULL AND NOT EXISTS (SELECT FROM closed_session s WHERE s.id = e.session_id)
GROUP BY 1, 2
LIMIT 1000

-- name: odd_messages
WITH step AS (
    SELECT day, session_id, version, message_id, reply->>'id' AS about, reply->>'outcome' AS outcome,
           coalesce((reply->>'granted_seconds')::bigint, 0) AS granted
    FROM session_message
), chain AS (
    SELECT step.*, lag(granted, 1, 0::bigint) OVER (PARTITION BY day, session_id ORDER BY version) AS granted_before
    FROM step
), told AS (
    SELECT day, session_id, count(*) AS steps, min(version) AS first, max(version) AS last,
           count(DISTINCT message_id) AS messages, bool_or(about IS DISTINCT FROM session_id::text) AS other,
           bool_or(outcome <> 'refused' AND granted < granted_before) AS taken_back,
           bool_or(version = 1 AND outcome = 'refused') AS refused
    FROM chain GROUP BY 1, 2
), session AS (
    SELECT opened_day AS day, id, version, ending = 'refused' AS refused FROM closed_session
    UNION ALL
    SELECT opened_day, id, version, false FROM live_session
)
SELECT coalesce(told.day, session.day) AS day, coalesce(told.session_id, session.id)::text AS session_id
FROM told FULL JOIN session ON session.day = told.day AND session.id = told.session_id
WHERE session.id IS NULL OR told.session_id IS NULL
   OR steps <> session.version OR first <> 1 OR last <> session.version OR messages <> steps
   OR other OR taken_back OR told.refused <> session.refused
LIMIT 1000

-- name: odd_keys
WITH session AS (
    SELECT key, opened_day, id, false AS live FROM closed_session
    UNION ALL
    SELECT key, opened_day, id, true FROM live_session
), chain AS (
    SELECT key, opened_day, lag(opened_day) OVER same AS before, lag(live) OVER same AS live_before
    FROM session WINDOW same AS (PARTITION BY key ORDER BY opened_day, id)
)
SELECT DISTINCT key FROM chain
WHERE before IS NOT NULL AND (live_before OR opened_day - before <= %s)
LIMIT 1000

-- name: sessions_of_keys
SELECT key, (body->>'opened_at')::timestamptz AS opened_at, false AS live FROM closed_session WHERE key = ANY (%s::text[])
UNION ALL
SELECT key, (body->>'opened_at')::timestamptz, true FROM live_session WHERE key = ANY (%s::text[])

-- name: names
SELECT w.id, p.code AS party, w.currency, w.parked FROM wallet w JOIN party p ON p.id = w.party_id
WHERE w.id = ANY (%s::bigint[]) ORDER BY w.id
