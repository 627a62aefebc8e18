-- name: webhook
SELECT w.id, w.code, p.code AS party, w.party_id, w.url, w.events, w.enabled, w.failing_since, w.disabled_why,
       w.old_until, w.created_at
FROM webhook w LEFT JOIN party p ON p.id = w.party_id WHERE w.code = %s

-- name: webhooks
SELECT w.id, w.code, p.code AS party, w.party_id, w.url, w.events, w.enabled, w.failing_since, w.disabled_why,
       w.old_until, w.created_at
FROM webhook w LEFT JOIN party p ON p.id = w.party_id
WHERE w.code > %(after)s AND (%(party)s = '' OR p.code = %(party)s) ORDER BY w.code LIMIT %(limit)s

-- name: lock
SELECT id FROM webhook WHERE code = %s FOR NO KEY UPDATE

-- name: add
INSERT INTO webhook (code, party_id, url, secret, events, enabled) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING RETURNING id

-- name: change
UPDATE webhook SET url = %(url)s, events = %(events)s, enabled = %(enabled)s,
    failing_since = CASE WHEN %(fresh)s THEN NULL ELSE failing_since END,
    disabled_why = CASE WHEN %(enabled)s THEN '' ELSE disabled_why END
WHERE id = %(id)s

-- name: rotate
-- What is on its way is signed by both until then.
UPDATE webhook SET old_secret = CASE WHEN %(until)s::timestamptz IS NULL THEN '' ELSE secret END,
    old_until = %(until)s, secret = %(secret)s
WHERE id = %(id)s

-- name: delete
DELETE FROM webhook WHERE id = %s

-- name: add_test
-- A delivery of no event: its number is below zero, where no event's is.
INSERT INTO webhook_delivery (webhook_id, feed_id, at, kind, body, next_at)
VALUES (%(webhook_id)s, %(feed_id)s, %(at)s, %(kind)s, %(body)s, %(at)s)
RETURNING id

-- name: deliveries
SELECT id, feed_id, at, kind, body, attempts, next_at, done_at, status, last_error FROM webhook_delivery
WHERE webhook_id = %(webhook_id)s AND (%(before)s = 0 OR id < %(before)s) AND CASE %(state)s
    WHEN 'waiting' THEN done_at IS NULL
    WHEN 'delivered' THEN done_at IS NOT NULL AND status BETWEEN 200 AND 299
    WHEN 'failed' THEN done_at IS NOT NULL AND (status IS NULL OR status NOT BETWEEN 200 AND 299)
    ELSE true END
ORDER BY id DESC LIMIT %(limit)s

-- name: delivery
SELECT id, feed_id, at, kind, body, attempts, next_at, done_at, status, last_error FROM webhook_delivery
WHERE webhook_id = %s AND id = %s

-- name: again
UPDATE webhook_delivery SET next_at = %(now)s, done_at = NULL, status = NULL, attempts = 0, last_error = ''
WHERE webhook_id = %(webhook_id)s AND id = %(id)s

-- name: listening
-- Who is to be told of what, at the moment.
SELECT id, party_id, events FROM webhook WHERE enabled

-- name: add_deliveries
INSERT INTO webhook_delivery (webhook_id, feed_id, at, kind, body, next_at)
SELECT webhook_id, feed_id, %(at)s, kind, body, %(at)s
FROM unnest(%(webhook_id)s::bigint[], %(feed_id)s::bigint[], %(kind)s::text[], %(body)s::text[])
    AS d(webhook_id, feed_id, kind, body)
ON CONFLICT (webhook_id, feed_id) DO NOTHING

-- name: due
-- Whose turn it is: not those that this process is busy with.
SELECT w.id, w.url, w.party_id, w.secret, w.old_secret, w.old_until, w.failing_since
FROM webhook w
WHERE w.enabled AND w.id <> ALL (%(busy)s::bigint[]) AND EXISTS (
    SELECT FROM webhook_delivery d WHERE d.webhook_id = w.id AND d.done_at IS NULL AND d.next_at <= %(now)s
)
ORDER BY w.id LIMIT %(limit)s

-- name: claim
-- Nobody else takes these up before the lease is over; if this process dies, somebody does then.
UPDATE webhook_delivery d SET attempts = d.attempts + 1, next_at = %(lease)s
WHERE d.id = ANY (ARRAY(
    SELECT c.id FROM webhook_delivery c
    WHERE c.webhook_id = %(webhook_id)s AND c.done_at IS NULL AND c.next_at <= %(now)s
    ORDER BY c.next_at, c.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
RETURNING d.id, d.feed_id, d.body, d.attempts

-- name: delivered
UPDATE webhook_delivery SET done_at = %(now)s, status = %(status)s, last_error = '' WHERE id = %(id)s

-- name: later
UPDATE webhook_delivery SET next_at = %(next_at)s, status = %(status)s, last_error = %(error)s WHERE id = %(id)s

-- name: given_up
UPDATE webhook_delivery SET done_at = %(now)s, status = %(status)s, last_error = %(error)s WHERE id = %(id)s

-- name: works
UPDATE webhook SET failing_since = NULL WHERE id = %s AND failing_since IS NOT NULL

-- name: fails
UPDATE webhook SET failing_since = %(now)s WHERE id = %(id)s AND failing_since IS NULL

-- name: disable
UPDATE webhook SET enabled = false, disabled_why = %(why)s WHERE id = %(id)s AND enabled RETURNING code

-- name: purge
DELETE FROM webhook_delivery WHERE done_at < %(before)s OR (done_at IS NULL AND at < %(before)s)
