-- name: status
SELECT id, status, billing FROM party WHERE code = %s

-- name: frozen_above
SELECT p.code FROM party_above a JOIN party p ON p.id = a.ancestor_id
WHERE a.party_id = %s AND p.status = 'frozen' ORDER BY a.depth LIMIT 1

-- name: set_billing
UPDATE party SET billing = %s WHERE id = %s

-- name: set_caps
-- What was decided on an old cap is decided again: the stamp says that the row has changed.
WITH changed AS (
    UPDATE meter m SET cap = given.cap, stamp = m.stamp + 1
    FROM unnest(%(codes)s::text[], %(caps)s::numeric[]) AS given(code, cap)
    WHERE m.party_id = %(party)s AND m.kind = 'spend' AND m.code = given.code AND m.ends_at > %(now)s
      AND m.cap IS DISTINCT FROM given.cap
    RETURNING m.id
)
SELECT pg_notify('tollkeeper', 'meter:' || id) FROM changed

-- name: seen
SELECT p.id, p.code, p.kind, p.status FROM party p
WHERE p.code = %(code)s AND (
    %(scope)s::bigint IS NULL
    OR EXISTS (SELECT FROM party_above a WHERE a.party_id = p.id AND a.ancestor_id = %(scope)s)
)

-- name: seen_by_id
SELECT p.id, p.code, p.kind, p.status FROM party p WHERE p.id = %s

-- name: above
SELECT ancestor_id, depth FROM party_above WHERE party_id = %s AND depth > 0 ORDER BY depth
