-- name: add_key
INSERT INTO api_key (name, hash, scopes, switch, party_id) VALUES (%s, %s, %s, %s, %s)
RETURNING id, name, scopes, switch, created_at, revoked_at, (SELECT code FROM party WHERE id = party_id) AS party

-- name: keys
SELECT k.id, k.name, k.scopes, k.switch, k.created_at, k.revoked_at, p.code AS party
FROM api_key k LEFT JOIN party p ON p.id = k.party_id
WHERE k.id > %s ORDER BY k.id LIMIT %s

-- name: revoke_key
UPDATE api_key SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL

-- name: key
SELECT k.id, k.name, k.scopes, k.switch, k.created_at, k.revoked_at, p.code AS party
FROM api_key k LEFT JOIN party p ON p.id = k.party_id
WHERE k.id = %s
