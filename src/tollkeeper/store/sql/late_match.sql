-- name: mark
SELECT CASE WHEN isfinite(upto) THEN upto END AS upto FROM match_mark FOR UPDATE

-- name: set_mark
UPDATE match_mark SET upto = greatest(upto, %s)

-- name: closed_since
-- Those that were charged after they had closed are among them: their end was told late.
SELECT key, opened_day, closed_at FROM closed_session
WHERE closed_at > %(since)s AND closed_at <= %(until)s AND opened_day >= %(first_day)s
  AND ending <> 'refused' AND charge > 0
UNION
SELECT c.key, c.opened_day, o.at FROM outbox o JOIN closed_session c ON c.id = o.session_id
WHERE o.kind = 'session.late' AND o.at > %(since)s AND o.at <= %(until)s
  AND c.opened_day >= %(first_day)s AND c.charge > 0

-- name: days
-- Days of switches of which files have come.
SELECT DISTINCT switch, day FROM usage_key WHERE day BETWEEN %s AND %s AND switch = ANY (%s::text[])

-- name: matches
SELECT k.id, k.matches FROM usage_key k JOIN cdr_batch b ON b.id = k.batch_id AND b.undone_by IS NULL
WHERE k.day = %s AND k.switch = %s AND k.id > %s ORDER BY k.id

-- name: priced_records
-- Records of calls whose customer was charged by the file, at their present value.
SELECT u.day, u.batch_id, u.line, u.call_id, u.customer_id, u.vendor_id, u.start_at,
       coalesce(r.wallet_id, u.sell_wallet) AS wallet_id, coalesce(r.version_id, u.sell_version) AS version_id,
       coalesce(r.row_no, u.sell_row) AS row_no, coalesce(r.prefix, u.sell_prefix) AS prefix,
       coalesce(r.destination, u.destination) AS destination, coalesce(r.billed, u.sell_billed) AS billed,
       coalesce(r.amount, u.charge) AS amount, u.trunk_in, u.trunk_out, u.service, w.currency AS sell_currency,
       coalesce(bw.currency, '') AS buy_currency
FROM usage u
JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL AND b.switch = %(switch)s
LEFT JOIN LATERAL (
    SELECT v.wallet_id, v.version_id, v.row_no, v.prefix, v.destination, v.billed, v.amount
    FROM usage_revision v JOIN cdr_batch vb ON vb.id = v.by_batch AND vb.undone_by IS NULL
    WHERE v.day = u.day AND v.batch_id = u.batch_id AND v.line = u.line AND v.leg = 0
    ORDER BY v.by_batch DESC LIMIT 1
) r ON true
JOIN wallet w ON w.id = coalesce(r.wallet_id, u.sell_wallet)
LEFT JOIN wallet bw ON bw.id = u.buy_wallet
WHERE u.day = ANY (%(days)s) AND u.call_id = %(call_id)s AND u.state = 'rated' AND coalesce(r.amount, u.charge) > 0
