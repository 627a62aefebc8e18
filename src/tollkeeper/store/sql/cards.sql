-- name: add_batch
INSERT INTO card_batch (code, owner_id, plan_id, currency, amount, valid_days, expires_at, fee_amount, fee_days,
                        max_seconds, pin_digits, on_expiry, created_at, created_by)
VALUES (%(code)s, %(owner_id)s, %(plan_id)s, %(currency)s, %(amount)s, %(valid_days)s, %(expires_at)s,
        %(fee_amount)s, %(fee_days)s, %(max_seconds)s, %(pin_digits)s, %(on_expiry)s, %(at)s, %(actor)s)
ON CONFLICT (code) DO NOTHING RETURNING id

-- name: add_parties
-- Each card is a party with one wallet and one call at a time.
WITH made AS (
    INSERT INTO party (code, name, kind, parent_id, plan_id, billing, max_sessions, max_seconds)
    SELECT code, code, 'card', %(owner_id)s, %(plan_id)s, 'prepaid', 1, %(max_seconds)s
    FROM unnest(%(codes)s::text[]) AS given(code)
    ON CONFLICT (code) DO NOTHING
    RETURNING id, code
), booked AS (
    INSERT INTO account (kind, currency, name) SELECT 'wallet', %(currency)s, code FROM made
    RETURNING id, name
), purses AS (
    INSERT INTO wallet (id, party_id, currency)
    SELECT booked.id, made.id, %(currency)s FROM booked JOIN made ON made.code = booked.name
), placed AS (
    INSERT INTO party_move (party_id, parent_id, actor, reason)
    SELECT id, %(owner_id)s, %(actor)s, 'created' FROM made
)
SELECT id, code FROM made

-- name: add_cards
INSERT INTO calling_card (party_id, batch_id, serial, pin_hash, expires_at)
SELECT party_id, %(batch_id)s, serial, pin_hash, %(expires_at)s
FROM unnest(%(parties)s::bigint[], %(serials)s::integer[], %(hashes)s::bytea[]) AS given(party_id, serial, pin_hash)
ON CONFLICT (pin_hash) DO NOTHING RETURNING serial

-- name: batches
SELECT b.id, b.code, owner.code AS owner, plan.code AS plan, b.currency, b.amount, b.valid_days, b.expires_at,
       b.fee_amount, b.fee_days, b.max_seconds, b.pin_digits, b.on_expiry, b.status, b.created_at, counted.*
FROM card_batch b
LEFT JOIN party owner ON owner.id = b.owner_id
LEFT JOIN rate_plan plan ON plan.id = b.plan_id
CROSS JOIN LATERAL (
    SELECT count(*) AS cards, count(*) FILTER (WHERE c.status = 'unused') AS unused,
           count(*) FILTER (WHERE c.status IN ('active', 'used_up')) AS used,
           count(*) FILTER (WHERE c.status = 'expired') AS expired,
           count(*) FILTER (WHERE c.status = 'blocked') AS blocked
    FROM calling_card c WHERE c.batch_id = b.id
) AS counted
WHERE b.code > %(after)s AND (%(code)s::text IS NULL OR b.code = %(code)s)
ORDER BY b.code LIMIT %(limit)s

-- name: set_batch_status
UPDATE card_batch SET status = %s WHERE id = %s

-- name: cards
SELECT c.id, c.party_id, p.code, b.code AS batch, c.serial, c.status, b.status AS batch_status, c.first_used_at,
       c.expires_at, c.next_fee_at, c.fees, b.currency,
       coalesce(w.credited - w.debited, 0) AS balance, coalesce(w.credited - w.debited - w.held, 0) AS available,
       ARRAY(SELECT k.caller FROM card_caller k WHERE k.card_id = c.id ORDER BY k.caller) AS callers
FROM calling_card c
JOIN card_batch b ON b.id = c.batch_id
JOIN party p ON p.id = c.party_id
LEFT JOIN wallet w ON w.party_id = c.party_id AND w.currency = b.currency
WHERE (%(code)s::text IS NULL OR p.code = %(code)s)
  AND (%(batch)s::text IS NULL OR b.code = %(batch)s)
  AND p.code > %(after)s
ORDER BY p.code LIMIT %(limit)s

-- name: lock
SELECT c.id, c.party_id, p.code, c.serial, c.status, c.first_used_at, c.expires_at, c.fees, c.unsettled,
       b.id AS batch_id, b.code AS batch, b.status AS batch_status, b.owner_id, owner.code AS owner,
       owner.kind AS owner_kind, b.currency, b.amount, b.valid_days, b.fee_amount, b.fee_days, b.on_expiry
FROM calling_card c
JOIN card_batch b ON b.id = c.batch_id
JOIN party p ON p.id = c.party_id
LEFT JOIN party owner ON owner.id = b.owner_id
WHERE c.id = %s FOR UPDATE OF c FOR SHARE OF b

-- name: id_by_pin
SELECT id FROM calling_card WHERE pin_hash = %s

-- name: ids_by_caller
-- Those of the sellers that whoever asks may know of.
SELECT k.card_id AS id FROM card_caller k LEFT JOIN party owner ON owner.id = k.owner_id
WHERE k.caller = %(caller)s
  AND (%(owner)s::text IS NULL OR owner.code = %(owner)s)
  AND (%(scope)s::bigint IS NULL
       OR k.owner_id IN (SELECT party_id FROM party_above WHERE ancestor_id = %(scope)s))
ORDER BY k.card_id LIMIT 2

-- name: id_by_code
SELECT c.id FROM calling_card c JOIN party p ON p.id = c.party_id WHERE p.code = %s

-- name: use_first
UPDATE calling_card SET status = 'active', first_used_at = %s, expires_at = %s, next_fee_at = %s WHERE id = %s

-- name: set_status
UPDATE calling_card SET status = %s WHERE id = %s

-- name: set_party_status
UPDATE party SET status = %s WHERE id = ANY (%s::bigint[])

-- name: used_of_batch
SELECT c.party_id FROM calling_card c WHERE c.batch_id = %s AND c.first_used_at IS NOT NULL ORDER BY c.party_id

-- name: used_and_good
-- Those that are not blocked one by one.
SELECT c.party_id FROM calling_card c
WHERE c.batch_id = %s AND c.first_used_at IS NOT NULL AND c.status <> 'blocked' ORDER BY c.party_id

-- name: tell
SELECT pg_notify('tollkeeper', 'party:' || id) FROM unnest(%s::bigint[]) AS given(id)

-- name: clear_callers
DELETE FROM card_caller WHERE card_id = %s

-- name: add_callers
-- A number that another card of the same seller had is that card's no more.
INSERT INTO card_caller (card_id, owner_id, caller, added_at)
SELECT %s, %s, caller, %s FROM unnest(%s::text[]) AS given(caller)
ON CONFLICT (caller, coalesce(owner_id, 0)) DO UPDATE
SET card_id = excluded.card_id, added_at = excluded.added_at

-- name: count_callers
SELECT count(*) AS callers FROM card_caller WHERE card_id = %s AND caller <> %s

-- name: take_turn
-- Guesses of one subject follow each other, so that many at once are counted one by one.
SELECT pg_advisory_xact_lock(hashtextextended(subject, 7215)) FROM unnest(%s::text[]) AS given(subject)

-- name: attempts
SELECT given.subject, given.most, last.at,
       (SELECT count(*) FROM pin_attempt a
        WHERE a.subject = given.subject AND a.at > last.at - %(window)s AND a.at <= last.at) AS wrong
FROM unnest(%(subjects)s::text[], %(most)s::integer[]) AS given(subject, most)
CROSS JOIN LATERAL (
    SELECT max(a.at) AS at FROM pin_attempt a
    WHERE a.subject = given.subject AND a.at > %(now)s - 2 * %(window)s
) AS last
WHERE last.at IS NOT NULL

-- name: add_attempts
INSERT INTO pin_attempt (subject, at) SELECT subject, %s FROM unnest(%s::text[]) AS given(subject)

-- name: purge_attempts
DELETE FROM pin_attempt WHERE at < %s

-- name: due_fees
SELECT id FROM calling_card WHERE status = 'active' AND next_fee_at <= %s ORDER BY next_fee_at, id LIMIT %s

-- name: fee_paid
UPDATE calling_card SET fees = fees + 1, next_fee_at = %s, status = %s WHERE id = %s

-- name: fee_later
UPDATE calling_card SET next_fee_at = %s WHERE id = %s AND status = 'active'

-- name: expire
-- What was never used has no money that could go anywhere.
WITH due AS (
    SELECT id FROM calling_card WHERE status <> 'expired' AND expires_at <= %(now)s
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE calling_card c SET status = 'expired', unsettled = c.first_used_at IS NOT NULL, look_at = %(now)s,
                          next_fee_at = NULL
FROM due WHERE c.id = due.id

-- name: to_settle
-- Not while a call is up: that one goes on to its end.
SELECT c.id FROM calling_card c
WHERE c.unsettled AND c.look_at <= %s
  AND NOT EXISTS (SELECT FROM wallet w WHERE w.party_id = c.party_id AND (w.live > 0 OR w.held > 0))
ORDER BY c.look_at, c.id LIMIT %s

-- name: settled
UPDATE calling_card SET unsettled = false WHERE id = %s

-- name: settle_later
UPDATE calling_card SET look_at = %s WHERE id = %s
