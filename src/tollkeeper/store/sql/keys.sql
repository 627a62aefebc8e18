-- name: add_key
INSERT INTO api_key (name, hash, scopes, switch) VALUES (%s, %s, %s, %s)
RETURNING id, name, scopes, switch, created_at, revoked_at

-- name: keys
SELECT id, name, scopes, switch, created_at, revoked_at FROM api_key WHERE id > %s ORDER BY id LIMIT %s

-- name: revoke_key
UPDATE api_key SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL

-- name: key
SELECT id, name, scopes, switch, created_at, revoked_at FROM api_key WHERE id = %s
