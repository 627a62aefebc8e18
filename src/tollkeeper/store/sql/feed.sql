-- name: lock
-- One process at a time, so that the numbers of events are in the order in which they can be read.
SELECT pg_try_advisory_xact_lock(7218, 1) AS got

-- name: tell_payment
SELECT tell_payment(%s, %s, %s, %s, %s)

-- name: waiting
SELECT EXISTS (SELECT FROM outbox_unfed) AS waiting

-- name: take
-- The outbox rows themselves are not touched: whoever delivers a kill holds them while a switch thinks.
WITH taken AS (
    DELETE FROM outbox_unfed WHERE outbox_id = ANY (ARRAY(
        SELECT outbox_id FROM outbox_unfed ORDER BY outbox_id LIMIT %s
    )) RETURNING outbox_id
)
SELECT o.id, o.at, o.kind, o.session_id::text AS session_id, o.detail, o.payload
FROM taken t JOIN outbox o ON o.id = t.outbox_id ORDER BY o.id

-- name: add
INSERT INTO feed (at, kind, party_id, switch, session_id, payload)
SELECT at, kind, party_id, switch, session_id, payload
FROM ROWS FROM (
    unnest(%(at)s::timestamptz[], %(kind)s::text[], %(party_id)s::bigint[], %(switch)s::text[], %(session_id)s::uuid[]),
    jsonb_array_elements(%(payload)s)
) WITH ORDINALITY AS f(at, kind, party_id, switch, session_id, payload, n)
ORDER BY n
RETURNING id

-- name: fed
-- Nothing else becomes of these; a request to end a call is done when its switch has taken it.
UPDATE outbox SET done_at = %(now)s, attempts = attempts + 1
WHERE id = ANY (%(ids)s::bigint[]) AND kind <> 'session.kill'

-- name: wake
SELECT pg_notify('tollkeeper', 'feed:' || %s::text)

-- name: live
SELECT id::text AS id, body::text AS body FROM live_session WHERE key = ANY (%s)

-- name: closed
SELECT id::text AS id, body::text AS body FROM closed_session
WHERE id = ANY (%(ids)s::uuid[]) AND opened_day >= %(since)s::date

-- name: overruns
SELECT e.session_id::text AS session_id, w.party_id, e.amount
FROM entry e JOIN wallet w ON w.id = e.wallet_id
WHERE e.session_id = ANY (%s::uuid[]) AND e.code = 'overrun' ORDER BY e.id

-- name: parties
SELECT id, code FROM party WHERE id = ANY (%(ids)s::bigint[]) OR code = ANY (%(codes)s::text[])

-- name: above
SELECT party_id, ancestor_id FROM party_above WHERE party_id = ANY (%s::bigint[])

-- name: calls_below
-- Calls that a party pays for, directly or as one above.
SELECT a.ancestor_id AS party_id, l.key FROM live_session l
JOIN party_above a ON a.party_id = l.party_id
WHERE a.ancestor_id = ANY (%(ids)s::bigint[]) ORDER BY l.key LIMIT %(limit)s

-- name: last
SELECT coalesce(max(id), 0) AS id FROM feed

-- name: after
SELECT id, at, kind, party_id, switch, session_id::text AS session_id, payload FROM feed
WHERE id > %(after)s AND id <= %(until)s ORDER BY id LIMIT %(limit)s

-- name: interest
-- Somebody listens to what is told only then; every process hears of it. Said again, it is not news.
WITH old AS (
    SELECT FROM feed_interest WHERE party_id = %(party_id)s AND until > now()
), said AS (
    INSERT INTO feed_interest (party_id, until) VALUES (%(party_id)s, now() + make_interval(secs => %(seconds)s))
    ON CONFLICT (party_id) DO UPDATE SET until = greatest(feed_interest.until, excluded.until)
)
SELECT pg_notify('tollkeeper', 'webhook:0') WHERE NOT EXISTS (SELECT FROM old)

-- name: hearing
-- Whose calls' ends somebody wants to hear of: a party and all below it, or 0 for everybody.
SELECT coalesce(party_id, 0) AS party_id FROM webhook WHERE enabled AND 'session.ended' = ANY (events)
UNION
SELECT party_id FROM feed_interest WHERE until > now()

-- name: purge
DELETE FROM feed WHERE at < %s

-- name: purge_interest
DELETE FROM feed_interest WHERE until < now()
