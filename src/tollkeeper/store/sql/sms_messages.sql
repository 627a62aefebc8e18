-- name: begin
-- Whoever writes the row first decides what becomes of a charge. The same row, written again after a
-- commit of which nothing was heard, is ours.
INSERT INTO sms_message (id, at, peer, key, upstream, upstream_id, source, dest, wants, state)
SELECT r.*, 'sending' FROM unnest(
    %(ids)s::text[], %(times)s::timestamptz[], %(peers)s::text[], %(keys)s::text[], %(upstreams)s::text[],
    %(upstream_ids)s::text[], %(sources)s::text[], %(dests)s::text[], %(wants)s::smallint[]
) AS r
ON CONFLICT (id) DO UPDATE SET state = sms_message.state
    WHERE sms_message.state = 'sending' AND sms_message.at = excluded.at
RETURNING id

-- name: accept
UPDATE sms_message m SET state = 'accepted', upstream_id = r.upstream_id, wants = r.wants
FROM unnest(%(ids)s::text[], %(upstream_ids)s::text[], %(wants)s::smallint[]) AS r(id, upstream_id, wants)
WHERE m.id = r.id AND m.state = 'sending'

-- name: withdraw
UPDATE sms_message m SET state = 'withdrawn' FROM unnest(%(ids)s::text[], %(times)s::timestamptz[]) AS r(id, at)
WHERE m.id = r.id AND m.at = r.at AND m.state = 'sending'

-- name: claim
INSERT INTO sms_message (id, at, peer, key, upstream, upstream_id, source, dest, state)
SELECT r.id, %(at)s, %(peer)s, %(switch)s || '/' || r.id, '', '', '', '', 'withdrawn'
FROM unnest(%(ids)s::text[]) AS r(id)
ON CONFLICT (id) DO NOTHING

-- name: withdrawn
SELECT id FROM sms_message WHERE id = ANY (%s::text[]) AND state = 'withdrawn' ORDER BY id

-- name: unheard
SELECT id, at, peer, key, upstream, upstream_id, source, dest, wants, state, receipt FROM sms_message
WHERE upstream = %(upstream)s AND upstream_id = '' AND state = 'sending'
  AND ltrim(dest, '+') = %(dest)s AND ltrim(source, '+') = %(source)s AND id <> ALL (%(besides)s::text[])
ORDER BY id LIMIT 1

-- name: overdue
SELECT id, at, peer, key, upstream, upstream_id, source, dest, wants, state, receipt FROM sms_message
WHERE upstream = %(upstream)s AND upstream_id = '' AND state = 'sending' AND at < %(before)s
ORDER BY id LIMIT %(limit)s

-- name: last_charge
SELECT substr(s.key, length(%(switch)s) + 2) AS id FROM closed_session s
WHERE s.opened_day >= %(day)s AND s.key > %(switch)s || '/' || %(first)s AND s.key < %(switch)s || '/' || %(last)s
  AND substr(s.key, length(%(switch)s) + 2) ~ '^[0-9a-f]{20,27}([.][0-9]+)?$'
ORDER BY s.key DESC LIMIT 1

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
-- Ids begin with their time, so that this reads the last messages of a switch only. Nothing goes out
-- without a row: these surely did not, or their row says so.
SELECT substr(s.key, length(%(switch)s) + 2) AS id FROM closed_session s
WHERE s.opened_day >= %(day)s AND s.key > %(switch)s || '/' || %(first)s AND s.key < %(switch)s || '/' || %(last)s
  AND substr(s.key, length(%(switch)s) + 2) ~ '^[0-9a-f]{20,27}([.][0-9]+)?$' AND s.ending <> 'refused' AND coalesce((s.body->>'refunded_ms')::bigint, 0) = 0
  AND NOT EXISTS (SELECT FROM sms_message m WHERE m.id = substr(s.key, length(%(switch)s) + 2) AND m.state <> 'withdrawn')
ORDER BY s.key LIMIT %(limit)s
