-- name: add
INSERT INTO credential (username, realm, ha1, party_id, enabled) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (username, realm) DO NOTHING
RETURNING id

-- name: change
UPDATE credential SET ha1 = coalesce(%(ha1)s, ha1), party_id = %(party_id)s, enabled = %(enabled)s WHERE id = %(id)s

-- name: one
SELECT c.id, c.username, c.realm, p.code AS party, c.enabled, c.created_at
FROM credential c JOIN party p ON p.id = c.party_id WHERE c.id = %s

-- name: named
SELECT c.id, c.username, c.realm, p.code AS party, c.enabled, c.created_at
FROM credential c JOIN party p ON p.id = c.party_id WHERE c.username = %s AND c.realm = %s

-- name: page
SELECT c.id, c.username, c.realm, p.code AS party, c.enabled, c.created_at
FROM credential c JOIN party p ON p.id = c.party_id
WHERE (%(party)s = '' OR p.code = %(party)s) AND c.id > %(after)s ORDER BY c.id LIMIT %(limit)s

-- name: delete
DELETE FROM credential WHERE id = %s
