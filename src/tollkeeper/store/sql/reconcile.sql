-- name: customer
-- The customer's own leg of one day's records, at its present value; money of another currency is
-- null. What was taken back is not there.
WITH revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line) r.batch_id, r.line, r.wallet_id, r.billed, r.amount
    FROM usage_revision r JOIN cdr_batch rb ON rb.id = r.by_batch AND rb.undone_by IS NULL
    WHERE r.day = %(day)s AND r.leg = 0
    ORDER BY r.batch_id, r.line, r.by_batch DESC
)
SELECT u.call_id, u.leg, u.caller, u.called, (extract(epoch FROM u.start_at) * 1000000)::bigint AS start,
       u.duration_ms, coalesce(r.billed, u.sell_billed) AS billed,
       CASE WHEN w.currency IS NULL OR w.currency = %(currency)s
            THEN (least(greatest(coalesce(r.amount, u.charge), -%(most)s), %(most)s) * 100000000)::bigint END AS amount
FROM usage u
JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL
LEFT JOIN revised r ON r.batch_id = u.batch_id AND r.line = u.line
LEFT JOIN wallet w ON w.id = coalesce(r.wallet_id, u.sell_wallet)
WHERE u.day = %(day)s AND u.start_at >= %(since)s AND u.start_at < %(until)s AND u.customer_id = %(party)s

-- name: reseller
-- The same for a leg between the customer and us; its revisions are numbered from 2.
WITH revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line, r.leg) r.batch_id, r.line, r.leg, r.wallet_id, r.billed, r.amount
    FROM usage_revision r JOIN cdr_batch rb ON rb.id = r.by_batch AND rb.undone_by IS NULL
    WHERE r.day = %(day)s AND r.leg > 1
    ORDER BY r.batch_id, r.line, r.leg, r.by_batch DESC
)
SELECT u.call_id, u.leg, u.caller, u.called, (extract(epoch FROM u.start_at) * 1000000)::bigint AS start,
       u.duration_ms, coalesce(r.billed, l.billed) AS billed,
       CASE WHEN w.currency IS NULL OR w.currency = %(currency)s
            THEN (least(greatest(coalesce(r.amount, l.charge), -%(most)s), %(most)s) * 100000000)::bigint END AS amount
FROM usage_leg l
JOIN usage u ON u.day = l.day AND u.batch_id = l.batch_id AND u.line = l.line
JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL
LEFT JOIN revised r ON r.batch_id = l.batch_id AND r.line = l.line AND r.leg = l.level + 1
LEFT JOIN wallet w ON w.id = coalesce(r.wallet_id, l.wallet_id)
WHERE l.day = %(day)s AND l.party_id = %(party)s AND u.day = %(day)s
  AND u.start_at >= %(since)s AND u.start_at < %(until)s

-- name: vendor
-- The vendor's leg.
WITH revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line) r.batch_id, r.line, r.wallet_id, r.billed, r.amount
    FROM usage_revision r JOIN cdr_batch rb ON rb.id = r.by_batch AND rb.undone_by IS NULL
    WHERE r.day = %(day)s AND r.leg = 1
    ORDER BY r.batch_id, r.line, r.by_batch DESC
)
SELECT u.call_id, u.leg, u.caller, u.called, (extract(epoch FROM u.start_at) * 1000000)::bigint AS start,
       u.duration_ms, coalesce(r.billed, u.buy_billed) AS billed,
       CASE WHEN w.currency IS NULL OR w.currency = %(currency)s
            THEN (least(greatest(coalesce(r.amount, u.cost), -%(most)s), %(most)s) * 100000000)::bigint END AS amount
FROM usage u
JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL
LEFT JOIN revised r ON r.batch_id = u.batch_id AND r.line = u.line
LEFT JOIN wallet w ON w.id = coalesce(r.wallet_id, u.buy_wallet)
WHERE u.day = %(day)s AND u.start_at >= %(since)s AND u.start_at < %(until)s AND u.vendor_id = %(party)s

-- name: switch
-- All records of a switch, with the customers' legs.
WITH revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line) r.batch_id, r.line, r.wallet_id, r.billed, r.amount
    FROM usage_revision r JOIN cdr_batch rb ON rb.id = r.by_batch AND rb.undone_by IS NULL
    WHERE r.day = %(day)s AND r.leg = 0
    ORDER BY r.batch_id, r.line, r.by_batch DESC
)
SELECT u.call_id, u.leg, u.caller, u.called, (extract(epoch FROM u.start_at) * 1000000)::bigint AS start,
       u.duration_ms, coalesce(r.billed, u.sell_billed) AS billed,
       CASE WHEN w.currency IS NULL OR w.currency = %(currency)s
            THEN (least(greatest(coalesce(r.amount, u.charge), -%(most)s), %(most)s) * 100000000)::bigint END AS amount
FROM usage u
JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL AND b.switch = %(switch)s
LEFT JOIN revised r ON r.batch_id = u.batch_id AND r.line = u.line
LEFT JOIN wallet w ON w.id = coalesce(r.wallet_id, u.sell_wallet)
WHERE u.day = %(day)s AND u.start_at >= %(since)s AND u.start_at < %(until)s

-- name: archived
SELECT day FROM archive_day WHERE day BETWEEN %s AND %s ORDER BY day

-- name: party
SELECT p.id, p.code, p.kind, p.dial_rules, coalesce(array_agg(w.currency ORDER BY w.currency)
       FILTER (WHERE w.id IS NOT NULL), '{}') AS currencies
FROM party p LEFT JOIN wallet w ON w.party_id = p.id
WHERE p.code = %s GROUP BY p.id

-- name: known_switch
SELECT EXISTS (SELECT FROM cdr_batch WHERE switch = %(switch)s)
    OR EXISTS (SELECT FROM cdr_source WHERE switch = %(switch)s) AS known

-- name: held
SELECT count(*) AS held FROM cdr_quarantine q JOIN cdr_batch b ON b.id = q.batch_id AND b.undone_by IS NULL
WHERE q.switch = %s AND q.status = 'open'
