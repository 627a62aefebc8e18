-- name: all
SELECT id, code, kind, switch, addresses, secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled
FROM peer ORDER BY code

-- name: mark
-- Another text for other contents: to be asked for again and again where there are many rows.
SELECT concat_ws(' ',
    (SELECT concat(count(*), ':', sum(hashtextextended(p::text, 0)::numeric)) FROM peer p),
    (SELECT concat(count(*), ':', sum(hashtextextended(t::text, 0)::numeric)) FROM trunk t),
    (SELECT concat(count(*), ':', sum(hashtextextended(c::text, 0)::numeric)) FROM credential c)
) AS mark

-- name: of_trunk
SELECT code FROM peer WHERE trunk = %s ORDER BY code LIMIT 1

-- name: credentials
SELECT c.username, c.realm, c.ha1, c.party_id FROM credential c WHERE c.enabled

-- name: open_sessions
SELECT body::text AS body FROM live_session WHERE key > %(switch)s || '/' AND key < %(switch)s || '0' AND key > %(after)s
ORDER BY key LIMIT %(limit)s

-- name: again
SELECT key FROM live_session WHERE strpos(key, %s) > 0 ORDER BY opened_day, id

-- name: standing
SELECT key, true AS open, opened_day FROM live_session WHERE key = ANY (%(keys)s::text[])
UNION ALL
SELECT key, false, opened_day FROM closed_session WHERE key = ANY (%(keys)s::text[]) AND opened_day >= %(since)s

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

-- name: one
SELECT id, code, kind, switch, addresses, secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled
FROM peer WHERE code = %s

-- name: page
SELECT id, code, kind, switch, addresses, secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled
FROM peer WHERE (%(kind)s = '' OR kind = %(kind)s) AND code > %(after)s ORDER BY code LIMIT %(limit)s

-- name: add
INSERT INTO peer (code, kind, switch, addresses, secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled)
VALUES (%(code)s, %(kind)s, %(switch)s, %(addresses)s, %(secret)s, %(dialect)s, %(trunk)s, %(timezone)s, %(on_failure)s,
    %(risk_seconds)s, %(options)s, %(enabled)s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: change
UPDATE peer SET addresses = %(addresses)s, secret = %(secret)s, dialect = %(dialect)s, trunk = %(trunk)s,
    timezone = %(timezone)s, on_failure = %(on_failure)s, risk_seconds = %(risk_seconds)s, options = %(options)s,
    enabled = %(enabled)s
WHERE code = %(code)s

-- name: delete
DELETE FROM peer WHERE code = %s

-- name: same_place
SELECT code FROM peer WHERE kind = %s AND code <> %s AND addresses && %s::text[] ORDER BY code LIMIT 1
