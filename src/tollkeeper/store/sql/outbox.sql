-- name: due
SELECT id, kind, session_id::text AS session_id, detail, payload, attempts, at FROM outbox
WHERE done_at IS NULL AND next_at <= %(now)s AND kind = 'session.kill'
  AND split_part(payload->>'key', '/', 1) <> ALL (%(but)s::text[])
ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED

-- name: lease
UPDATE outbox SET next_at = %s WHERE id = ANY (%s::bigint[]) AND done_at IS NULL

-- name: done
UPDATE outbox SET done_at = %s, last_error = %s, attempts = attempts + 1 WHERE id = %s

-- name: later
UPDATE outbox SET next_at = %s, last_error = %s, attempts = attempts + 1 WHERE id = %s

-- name: switch
SELECT kill_url, secret FROM switch WHERE code = %s

-- name: set_switch
INSERT INTO switch (code, kill_url, secret) VALUES (%s, %s, %s)
ON CONFLICT (code) DO UPDATE SET kill_url = excluded.kill_url, secret = excluded.secret

-- name: delete_switch
DELETE FROM switch WHERE code = %s

-- name: purge
DELETE FROM outbox WHERE done_at < %s

-- name: purge_idempotency
DELETE FROM idempotency WHERE at < %s

-- name: partitions
SELECT ensure_partitions(%s::date, %s)
