-- name: add
INSERT INTO sms_message (id, at, peer, key, upstream, upstream_id, source, dest, wants)
SELECT * FROM unnest(
    %(ids)s::text[], %(times)s::timestamptz[], %(peers)s::text[], %(keys)s::text[], %(upstreams)s::text[],
    %(upstream_ids)s::text[], %(sources)s::text[], %(dests)s::text[], %(wants)s::smallint[]
)
ON CONFLICT (id) DO NOTHING

-- name: of_upstream
SELECT id, at, peer, key, upstream, upstream_id, source, dest, wants, state, receipt FROM sms_message
WHERE upstream = %(upstream)s AND upstream_id = ANY (%(ids)s::text[]) ORDER BY id

-- name: by_ids
SELECT id, at, peer, key, upstream, upstream_id, source, dest, wants, state, receipt FROM sms_message
WHERE id = ANY (%s::text[]) ORDER BY id

-- name: close
-- The first final word on a message holds.
UPDATE sms_message m SET state = r.state, receipt = r.receipt
FROM ROWS FROM (unnest(%(ids)s::text[]), unnest(%(states)s::text[]), jsonb_array_elements(%(receipts)s::jsonb))
     AS r(id, state, receipt)
WHERE m.id = r.id AND m.state = 'accepted'

-- name: waiting
SELECT id, at, peer, key, upstream, upstream_id, source, dest, wants, state, receipt FROM sms_message
WHERE peer = %(peer)s AND receipt IS NOT NULL AND told_at IS NULL AND id > %(after)s
ORDER BY id LIMIT %(limit)s

-- name: told
UPDATE sms_message SET told_at = %(at)s WHERE id = ANY (%(ids)s::text[]) AND told_at IS NULL

-- name: purge
DELETE FROM sms_message WHERE id IN (SELECT id FROM sms_message WHERE at < %(before)s ORDER BY at LIMIT %(limit)s)

-- name: unknown_fate
-- Ids begin with their time, so that this reads the last messages of a switch only.
SELECT substr(s.key, length(%(switch)s) + 2) AS id FROM closed_session s
WHERE s.opened_day >= %(day)s AND s.key > %(switch)s || '/' || %(first)s AND s.key < %(switch)s || '/' || %(last)s
  AND substr(s.key, length(%(switch)s) + 2) ~ '^[0-9a-f]{20,27}([.][0-9]+)?$' AND s.ending <> 'refused' AND coalesce((s.body->>'refunded_ms')::bigint, 0) = 0
  AND NOT EXISTS (SELECT FROM sms_message m WHERE m.id = substr(s.key, length(%(switch)s) + 2))
ORDER BY s.key LIMIT %(limit)s
