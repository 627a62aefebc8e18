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

-- name: meters
SELECT id, party_id, used, held, base, cap, stamp FROM meter WHERE id = ANY (%s::bigint[]) ORDER BY id

-- name: meters_locked
SELECT id, party_id, used, held, base, cap, stamp FROM meter WHERE id = ANY (%s::bigint[]) ORDER BY id FOR UPDATE

-- name: charge_batch
SELECT charge_batch_v2(
    $1::timestamptz,
    $2::bigint[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[],
    $7::integer[], $8::bigint[], $9::integer[], $10::integer[], $11::boolean[],
    $12::uuid[], $13::text[], $14::bigint[], $15::date[], $16::timestamptz[], $17::json,
    $18::text[], $19::integer[], $20::timestamptz[], $21::json,
    $22::uuid[], $23::integer[], $24::text[], $25::bigint[], $26::date[], $27::text[], $28::numeric[], $29::json,
    $30::uuid[], $31::date[], $32::integer[], $33::numeric[], $34::json,
    $35::date[], $36::uuid[], $37::integer[], $38::text[], $39::text[], $40::json, $41::json,
    $42::bigint[], $43::bigint[], $44::bigint[], $45::text[], $46::numeric[], $47::text[], $48::bigint[],
    $49::numeric[], $50::uuid[], $51::smallint[],
    $52::text[], $53::uuid[], $54::text[], $55::json,
    $56::bigint[], $57::bigint[], $58::numeric[], $59::numeric[], $60::numeric[], $61::boolean[]
)

-- name: account
INSERT INTO account (kind, currency, name) VALUES (%s, %s, %s)
ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name
RETURNING id
