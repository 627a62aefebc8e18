-- name: supplier
SELECT id, code, kind, base_url, secret, settings, enabled, created_at FROM supplier WHERE code = %s

-- name: supplier_by_id
SELECT id, code, kind, base_url, secret, settings, enabled, created_at FROM supplier WHERE id = %s

-- name: suppliers
SELECT id, code, kind, base_url, secret, settings, enabled, created_at FROM supplier
WHERE code > %(after)s AND (%(kind)s = '' OR kind = %(kind)s) ORDER BY code LIMIT %(limit)s

-- name: lock
SELECT id FROM supplier WHERE code = %s FOR NO KEY UPDATE

-- name: add
INSERT INTO supplier (code, kind, base_url, secret, settings, enabled) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING RETURNING id

-- name: change
UPDATE supplier SET base_url = %s, secret = %s, settings = %s, enabled = %s WHERE id = %s

-- name: delete
DELETE FROM supplier s WHERE s.code = %s
  AND NOT EXISTS (SELECT FROM purchase p WHERE p.supplier_id = s.id)
  AND NOT EXISTS (SELECT FROM lookup_query q WHERE q.supplier_id = s.id)

-- name: party_in_scope
SELECT p.id FROM party p
WHERE p.code = %(code)s AND (
    %(scope)s::bigint IS NULL
    OR EXISTS (SELECT FROM party_above a WHERE a.party_id = p.id AND a.ancestor_id = %(scope)s::bigint)
)
