-- name: wallet
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked, version,
       stamp
FROM wallet WHERE id = %s

-- name: wallets_of_party
SELECT w.id, w.party_id, w.currency, w.credited, w.debited, w.held, w.credit_limit, w.live, w.cps_second,
       w.cps_count, w.parked, w.version, w.stamp
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE p.code = %s
ORDER BY w.currency

-- name: find_wallet
SELECT w.id, w.party_id, w.currency, w.credited, w.debited, w.held, w.credit_limit, w.live, w.cps_second,
       w.cps_count, w.parked, w.version, w.stamp
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE p.code = %s AND w.currency = %s

-- name: lock_wallet
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked, version,
       stamp
FROM wallet WHERE id = %s FOR UPDATE

-- name: add_account
INSERT INTO account (kind, currency, name) VALUES (%s, %s, %s)
ON CONFLICT (kind, currency, name) DO NOTHING
RETURNING id

-- name: account
SELECT id FROM account WHERE kind = %s AND currency = %s AND name = %s

-- name: add_wallet
INSERT INTO wallet (id, party_id, currency, credit_limit) VALUES (%s, %s, %s, %s)

-- name: set_terms
UPDATE wallet SET credit_limit = %s, parked = %s, stamp = stamp + 1 WHERE id = %s

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
