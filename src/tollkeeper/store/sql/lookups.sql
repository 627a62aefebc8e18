-- name: add
INSERT INTO lookup_query (party_id, request_id, charge_id, kind, number, service, cached, answer, supplier_id,
                          created_at, next_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (party_id, request_id) DO NOTHING RETURNING id

-- name: query
SELECT q.*, p.code AS party FROM lookup_query q JOIN party p ON p.id = q.party_id WHERE q.id = %s

-- name: by_request
SELECT q.*, p.code AS party FROM lookup_query q JOIN party p ON p.id = q.party_id
WHERE q.party_id = %s AND q.request_id = %s

-- name: take
UPDATE lookup_query SET next_at = %(until)s WHERE id = %(id)s AND next_at <= %(now)s RETURNING id

-- name: take_due
UPDATE lookup_query SET next_at = %(until)s
WHERE id IN (
    SELECT id FROM lookup_query WHERE next_at <= %(now)s ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING id

-- name: charged
UPDATE lookup_query SET status = 'charged', charge = %s, currency = %s WHERE id = %s AND status = 'new'

-- name: decided
-- With a refund somebody is still to give the money back: next_at stays.
UPDATE lookup_query SET status = %(status)s, reason = %(reason)s, answer = %(answer)s, ended_at = %(now)s,
    refund = %(refund)s, next_at = CASE WHEN %(refund)s THEN next_at END
WHERE id = %(id)s AND status IN ('new', 'charged')

-- name: refunded
UPDATE lookup_query SET refund = false, charge = 0, next_at = NULL WHERE id = %s

-- name: cached
SELECT answer FROM lookup_cache WHERE kind = %s AND number = %s AND expires_at > %s

-- name: keep
INSERT INTO lookup_cache (kind, number, answer, at, expires_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (kind, number) DO UPDATE SET answer = excluded.answer, at = excluded.at, expires_at = excluded.expires_at

-- name: purge_decided
DELETE FROM lookup_query
WHERE ended_at < %s AND status NOT IN ('new', 'charged') AND NOT refund AND next_at IS NULL

-- name: purge
DELETE FROM lookup_cache WHERE expires_at <= %s
