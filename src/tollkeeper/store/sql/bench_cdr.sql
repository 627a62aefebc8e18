-- name: ensure_days
SELECT ensure_partitions(%s, %s)

-- name: revenue
INSERT INTO account (kind, currency, name) VALUES ('revenue', 'USD', 'voice')
ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name RETURNING id

-- name: wallets
SELECT id, version, credited - debited AS balance FROM wallet WHERE id = ANY (%s::bigint[]) ORDER BY id FOR UPDATE

-- name: sessions
COPY closed_session (opened_day, id, key, party_id, closed_at, ending, charge, version, body) FROM STDIN

-- name: messages
COPY session_message (day, session_id, version, message_id, digest, at, request, reply) FROM STDIN

-- name: entries
COPY entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id, wallet_version, balance_after,
            session_id, leg) FROM STDIN

-- name: settle
UPDATE wallet SET debited = debited + %s, version = version + %s, stamp = stamp + 1 WHERE id = %s

-- name: totals
SELECT (SELECT count(*) FROM usage) AS usage,
       (SELECT coalesce(sum(attempts), 0)::bigint FROM usage_hour) AS attempts,
       (SELECT count(*) FROM usage_hour) AS hours,
       (SELECT coalesce(sum(charge) FILTER (WHERE state = 'rated'), 0) FROM usage) AS charge,
       (SELECT coalesce(sum(cost), 0) FROM usage) AS cost,
       (SELECT coalesce(sum(amount), 0) FROM entry WHERE code = 'rated') AS posted_charge,
       (SELECT coalesce(sum(amount), 0) FROM entry WHERE code = 'cost') AS posted_cost

