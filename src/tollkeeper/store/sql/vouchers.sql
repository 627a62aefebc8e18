-- name: secret
SELECT secret FROM voucher_secret

-- name: add_batch
INSERT INTO voucher_batch (code, party_id, kind, amount, currency, valid_from, valid_to, bonus_days, bonus_order,
                           created_at, created_by)
VALUES (%(code)s, %(owner)s, %(kind)s, %(amount)s, %(currency)s, %(valid_from)s, %(valid_to)s, %(bonus_days)s,
        %(bonus_order)s, %(at)s, %(actor)s)
ON CONFLICT (code) DO NOTHING RETURNING id

-- name: add
INSERT INTO voucher (batch_id, hash) SELECT %s, hash FROM unnest(%s::bytea[]) AS new(hash)
ON CONFLICT (hash) DO NOTHING RETURNING hash

-- name: lock
SELECT v.id, v.status, v.redeemed_by, v.redeemed_at, b.id AS batch_id, b.code AS batch, b.status AS batch_status,
       b.kind, b.amount, b.currency, b.party_id AS owner_id, owner.code AS owner, b.valid_from, b.valid_to,
       b.bonus_days, b.bonus_order
FROM voucher v JOIN voucher_batch b ON b.id = v.batch_id LEFT JOIN party owner ON owner.id = b.party_id
WHERE v.hash = %s FOR UPDATE OF v FOR SHARE OF b

-- name: redeem
UPDATE voucher SET status = 'redeemed', redeemed_by = %s, redeemed_at = %s, wallet_id = %s WHERE id = %s

-- name: block
UPDATE voucher SET status = 'blocked' WHERE id = %s AND status = 'active'

-- name: block_batch
UPDATE voucher_batch SET status = %s WHERE id = %s

-- name: batches
SELECT b.id, b.code, owner.code AS owner, b.kind, b.amount, b.currency, b.valid_from, b.valid_to, b.bonus_days,
       b.bonus_order, b.status, b.created_at,
       (SELECT count(*) FROM voucher v WHERE v.batch_id = b.id) AS vouchers,
       (SELECT count(*) FROM voucher v WHERE v.batch_id = b.id AND v.status = 'redeemed') AS redeemed,
       (SELECT count(*) FROM voucher v WHERE v.batch_id = b.id AND v.status = 'blocked') AS blocked
FROM voucher_batch b LEFT JOIN party owner ON owner.id = b.party_id
WHERE b.code > %(after)s AND (%(code)s::text IS NULL OR b.code = %(code)s)
ORDER BY b.code LIMIT %(limit)s

-- name: take_turn
-- Guesses of one subject follow each other, so that many at once are counted one by one.
SELECT pg_advisory_xact_lock(hashtextextended(subject, 7213)) FROM unnest(%s::text[]) AS given(subject)

-- name: attempts
SELECT last.subject, last.at,
       (SELECT count(*) FROM voucher_attempt a
        WHERE a.subject = last.subject AND a.at > last.at - %(window)s AND a.at <= last.at) AS wrong
FROM (
    SELECT subject, max(at) AS at FROM voucher_attempt
    WHERE subject = ANY (%(subjects)s::text[]) AND at > %(now)s - 2 * %(window)s
    GROUP BY subject
) AS last

-- name: add_attempts
INSERT INTO voucher_attempt (subject, at) SELECT subject, %s FROM unnest(%s::text[]) AS given(subject)

-- name: purge_attempts
DELETE FROM voucher_attempt WHERE at < %s
