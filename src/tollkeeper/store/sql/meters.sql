-- name: find
SELECT id, cap FROM meter WHERE party_id = %s AND kind = %s AND code = %s AND begins_at = %s

-- name: add
INSERT INTO meter (party_id, kind, code, begins_at, unit, ends_at, cap) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (party_id, kind, code, begins_at) DO NOTHING RETURNING id

-- name: set_cap
-- What was decided on the old cap is decided again: the stamp says that the row has changed.
WITH changed AS (
    UPDATE meter SET cap = %(cap)s, stamp = stamp + 1
    WHERE id = %(id)s AND cap IS DISTINCT FROM %(cap)s::numeric RETURNING id
)
SELECT pg_notify('tollkeeper', 'meter:' || id) FROM changed

-- name: unused
-- What is left of the period before one; units that calls still hold may yet be used.
SELECT greatest(cap - used - held, 0) AS unused FROM meter
WHERE party_id = %s AND kind = %s AND code = %s AND ends_at = %s

-- name: states
SELECT id, party_id, used, held, base, cap, stamp FROM meter WHERE id = ANY (%s::bigint[])
