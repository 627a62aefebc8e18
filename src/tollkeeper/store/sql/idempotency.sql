-- name: claim
INSERT INTO idempotency (api_key_id, key, digest, status, body) VALUES (%s, %s, %s, 0, '')
ON CONFLICT (api_key_id, key) DO NOTHING

-- name: answered
SELECT digest, status, body FROM idempotency WHERE api_key_id = %s AND key = %s

-- name: answer
UPDATE idempotency SET status = %s, body = %s WHERE api_key_id = %s AND key = %s
