-- name: all
SELECT id, code, kind, switch, addresses, secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled
FROM peer ORDER BY code

-- name: credentials
SELECT c.username, c.realm, c.ha1, c.party_id FROM credential c WHERE c.enabled

-- name: open_sessions
SELECT body::text AS body FROM live_session WHERE key > %(switch)s || '/' AND key < %(switch)s || '0' AND key > %(after)s
ORDER BY key LIMIT %(limit)s

-- name: again
SELECT key FROM live_session WHERE strpos(key, %s) > 0 ORDER BY opened_day, id

-- name: hold
SELECT pg_try_advisory_lock(7203, %s::integer)

-- name: handle
SELECT body FROM call_handle WHERE key = %s

-- name: keep_handles
INSERT INTO call_handle (key, body)
SELECT key, body FROM ROWS FROM (unnest(%s::text[]), jsonb_array_elements(%s::jsonb)) AS h(key, body)
ON CONFLICT (key) DO UPDATE SET body = excluded.body, at = now()

-- name: forget_handles
DELETE FROM call_handle WHERE key = ANY (%s::text[])

-- name: purge_handles
DELETE FROM call_handle h WHERE at < %s AND NOT EXISTS (SELECT FROM live_session s WHERE s.key = h.key)
