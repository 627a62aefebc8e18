-- name: live_sessions
SELECT key, opened_day, body::text AS body FROM live_session WHERE key = ANY (%s::text[])

-- name: closed_sessions
SELECT key, opened_day, body::text AS body FROM closed_session
WHERE key = ANY (%s::text[]) AND opened_day >= %s::date
ORDER BY opened_day

-- name: messages
SELECT m.session_id::text AS session_id, m.message_id, m.digest, m.reply::text AS reply
FROM session_message m
JOIN unnest(%s::date[], %s::uuid[]) AS w(day, id) ON m.day = w.day AND m.session_id = w.id
ORDER BY m.session_id, m.version

-- name: wallets
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count,
       parked, version, stamp
FROM wallet WHERE id = ANY (%s::bigint[]) ORDER BY id

-- name: wallets_locked
SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count,
       parked, version, stamp
FROM wallet WHERE id = ANY (%s::bigint[]) ORDER BY id FOR UPDATE

-- name: charge_batch
SELECT charge_batch_v1(
    %s::timestamptz,
    %s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::integer[], %s::bigint[], %s::integer[], %s::integer[], %s::boolean[],
    %s::uuid[], %s::text[], %s::bigint[], %s::date[], %s::timestamptz[], %s::text[],
    %s::text[], %s::integer[], %s::timestamptz[], %s::text[],
    %s::uuid[], %s::integer[], %s::text[], %s::bigint[], %s::date[], %s::text[], %s::numeric[], %s::text[],
    %s::uuid[], %s::date[], %s::integer[], %s::numeric[], %s::text[],
    %s::date[], %s::uuid[], %s::integer[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::numeric[], %s::text[], %s::bigint[],
    %s::numeric[], %s::uuid[], %s::smallint[],
    %s::text[], %s::uuid[], %s::text[], %s::text[]
)

-- name: account
INSERT INTO account (kind, currency, name) VALUES (%s, %s, %s)
ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name
RETURNING id
