-- name: wallet
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked, version,
       stamp, agreed_limit, temp_limit, temp_until, daily_cap, monthly_cap, alert_at
FROM wallet WHERE id = %s

-- name: wallets_of_party
SELECT w.id, w.party_id, w.currency, w.credited, w.debited, w.held, w.credit_limit, w.live, w.cps_second,
       w.cps_count, w.parked, w.version, w.stamp, w.agreed_limit, w.temp_limit, w.temp_until, w.daily_cap,
       w.monthly_cap, w.alert_at
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE p.code = %s
ORDER BY w.currency

-- name: find_wallet
SELECT w.id, w.party_id, w.currency, w.credited, w.debited, w.held, w.credit_limit, w.live, w.cps_second,
       w.cps_count, w.parked, w.version, w.stamp, w.agreed_limit, w.temp_limit, w.temp_until, w.daily_cap,
       w.monthly_cap, w.alert_at
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE p.code = %s AND w.currency = %s

-- name: lock_wallet
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked, version,
       stamp, agreed_limit, temp_limit, temp_until, daily_cap, monthly_cap, alert_at
FROM wallet WHERE id = %s FOR UPDATE

-- name: add_account
INSERT INTO account (kind, currency, name) VALUES (%s, %s, %s)
ON CONFLICT (kind, currency, name) DO NOTHING
RETURNING id

-- name: account
SELECT id FROM account WHERE kind = %s AND currency = %s AND name = %s

-- name: lock_wallets
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked, version,
       stamp, agreed_limit, temp_limit, temp_until, daily_cap, monthly_cap, alert_at
FROM wallet WHERE id = ANY (%s::bigint[]) ORDER BY id FOR UPDATE

-- name: add_wallet
INSERT INTO wallet (id, party_id, currency, agreed_limit, credit_limit)
SELECT %(id)s, p.id, %(currency)s, %(agreed)s, limit_of(p.billing, %(agreed)s::numeric, 0)
FROM party p WHERE p.id = %(party)s

-- name: set_terms
UPDATE wallet w
SET agreed_limit = %(agreed_limit)s, temp_limit = %(temp_limit)s, temp_until = %(temp_until)s,
    daily_cap = %(daily_cap)s, monthly_cap = %(monthly_cap)s, alert_at = %(alert_at)s, parked = %(parked)s,
    credit_limit = limit_of(p.billing, %(agreed_limit)s::numeric, %(temp_limit)s::numeric), stamp = w.stamp + 1
FROM party p WHERE p.id = w.party_id AND w.id = %(id)s

-- name: follow_terms
UPDATE wallet w SET credit_limit = limit_of(p.billing, w.agreed_limit, w.temp_limit), stamp = w.stamp + 1
FROM party p
WHERE p.id = w.party_id AND w.id = ANY (%s::bigint[])
  AND w.credit_limit <> limit_of(p.billing, w.agreed_limit, w.temp_limit)

-- name: of_party
SELECT id FROM wallet WHERE party_id = %s ORDER BY id

-- name: over
-- Temporary limits whose time is over; with the party's code, whose row is locked before the wallet's.
SELECT w.id, p.code AS party, w.currency FROM wallet w JOIN party p ON p.id = w.party_id
WHERE w.temp_until <= %s ORDER BY w.temp_until LIMIT %s

-- name: post
UPDATE wallet
SET credited = credited + %s, debited = debited + %s, version = version + 1, stamp = stamp + 1
WHERE id = %s

-- name: add_entry
INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id, wallet_version,
                   balance_after, actor, reason)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: last_before
SELECT wallet_version, balance_after FROM entry
WHERE wallet_id = %s AND day <= %s AND at < %s
ORDER BY day DESC, wallet_version DESC LIMIT 1

-- name: entries
SELECT id, at, code, amount, currency, wallet_version, balance_after, session_id, actor, reason
FROM entry
WHERE wallet_id = %s AND day BETWEEN %s AND %s AND wallet_version > %s AND wallet_version <= %s
ORDER BY wallet_version LIMIT %s
