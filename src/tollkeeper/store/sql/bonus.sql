-- name: open
SELECT id, wallet_id, party_id, amount, use_order, granted_at, expires_at, left_over, seen_debited, seen_version,
       closed_at, actor, reason
FROM bonus WHERE wallet_id = %s AND closed_at IS NULL ORDER BY expires_at, id

-- name: of_wallet
SELECT id, wallet_id, party_id, amount, use_order, granted_at, expires_at, left_over, seen_debited, seen_version,
       closed_at, actor, reason
FROM bonus WHERE wallet_id = %s AND id > %s ORDER BY id LIMIT %s

-- name: add
INSERT INTO bonus (wallet_id, party_id, amount, use_order, granted_at, expires_at, left_over, seen_debited,
                   seen_version, look_at, actor, reason)
SELECT w.id, w.party_id, %(amount)s, %(order)s, %(at)s, %(expires_at)s, %(amount)s, w.debited, w.version,
       %(expires_at)s, %(actor)s, %(reason)s
FROM wallet w WHERE w.id = %(wallet_id)s
RETURNING id

-- name: given_back
SELECT coalesce(sum(amount), 0) AS amount FROM entry
WHERE wallet_id = %s AND wallet_version > %s AND code IN ('correction', 'refund', 'rebate', 'reversal')

-- name: settle
UPDATE bonus SET left_over = %s WHERE id = %s

-- name: seen
UPDATE bonus b SET seen_debited = w.debited, seen_version = w.version
FROM wallet w WHERE w.id = b.wallet_id AND b.wallet_id = %s AND b.closed_at IS NULL

-- name: to_look_at
SELECT id, wallet_id FROM bonus WHERE closed_at IS NULL AND look_at <= %s ORDER BY look_at LIMIT %s

-- name: look_later
UPDATE bonus SET look_at = %s WHERE id = %s

-- name: close
UPDATE bonus SET closed_at = %s WHERE id = %s

-- name: held_since_before
-- What the calls hold that were up already at a moment. Live sessions have no index by wallet: this is
-- asked for only while a lot that has expired cannot be taken back.
SELECT coalesce(sum((leg->>'held')::numeric), 0) AS held
FROM live_session, json_array_elements(body->'legs') AS leg
WHERE (leg->>'wallet_id')::bigint = %s AND (body->>'opened_at')::timestamptz < %s
