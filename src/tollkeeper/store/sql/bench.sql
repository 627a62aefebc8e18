-- name: parties
WITH plan AS (SELECT id FROM rate_plan WHERE code = 'bench'),
made AS (
    INSERT INTO party (code, name, kind, plan_id)
    SELECT 'bench-' || n, 'Bench ' || n, 'customer', plan.id FROM plan, generate_series(1, %(count)s) AS n
    RETURNING id, code
), accounts AS (
    INSERT INTO account (kind, currency, name) SELECT 'wallet', 'USD', code FROM made RETURNING id, name
), clearing AS (
    INSERT INTO account (kind, currency, name) VALUES ('clearing', 'USD', 'bench')
    ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name RETURNING id
), revenue AS (
    INSERT INTO account (kind, currency, name) VALUES ('revenue', 'USD', 'voice') ON CONFLICT DO NOTHING
), wallets AS (
    INSERT INTO wallet (id, party_id, currency, credited, version)
    SELECT a.id, m.id, 'USD', %(money)s, 1 FROM accounts a JOIN made m ON m.code = a.name RETURNING id
)
INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id, wallet_version,
                   balance_after, actor, reason)
SELECT (now() AT TIME ZONE 'UTC')::date, now(), 'topup', c.id, w.id, %(money)s, 'USD', w.id, 1, %(money)s, 'bench', 'bench'
FROM wallets w, clearing c

-- name: baseline_lock
SELECT credited - debited + credit_limit - held AS available, version FROM wallet WHERE id = %s FOR UPDATE

-- name: baseline_open
INSERT INTO live_session (key, id, party_id, opened_day, expires_at, version, body)
VALUES (%s, %s, %s, %s, %s, 1, %s)

-- name: baseline_hold
UPDATE wallet SET held = held + %s, live = live + 1, stamp = stamp + 1 WHERE id = %s

-- name: baseline_message
INSERT INTO session_message (day, session_id, version, message_id, digest, at, request, reply)
VALUES (%s, %s, %s, %s, '', now(), '{}', '{}')

-- name: baseline_take
DELETE FROM live_session WHERE key = %s RETURNING id, body::text AS body

-- name: baseline_close
INSERT INTO closed_session (opened_day, id, key, party_id, closed_at, ending, charge, version, body)
VALUES (%s, %s, %s, %s, now(), 'settled', %s, 2, %s)

-- name: baseline_entry
INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id, wallet_version,
                   balance_after, session_id, leg)
SELECT (now() AT TIME ZONE 'UTC')::date, now(), 'usage', w.id, a.id, %(amount)s, 'USD', w.id, w.version + 1,
       w.credited - w.debited - %(amount)s, %(session)s, 0
FROM wallet w, account a
WHERE w.id = %(wallet)s AND a.kind = 'revenue' AND a.currency = 'USD' AND a.name = 'voice'

-- name: baseline_settle
UPDATE wallet SET held = held - %s, debited = debited + %s, live = live - 1, version = version + 1, stamp = stamp + 1
WHERE id = %s

-- name: slow_commit
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET commit_siblings = 0', current_database());
    EXECUTE format('ALTER DATABASE %I SET commit_delay = DELAY', current_database());
END $$
