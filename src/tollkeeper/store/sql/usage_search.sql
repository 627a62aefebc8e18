-- name: fence
-- A day moves to the archive in one transaction that drops its partition, which needs the parent
-- alone: whoever holds this sees either the partition or the archived part, never both or none.
LOCK TABLE ONLY usage IN ACCESS SHARE MODE;

-- name: bounds
-- Materialized: the end of a name is a day only where it is known to be that of a partition.
WITH tables AS MATERIALIZED (
    SELECT child.relname
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'usage'::regclass
)
SELECT min(day) AS first, max(day) AS last
FROM (
    SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day FROM tables
    UNION ALL
    SELECT day FROM archive_day WHERE purged_at IS NULL
) AS days;

-- name: rows
SELECT u.day, u.batch_id, u.line, u.start_at, u.answer_at, u.duration_ms, u.call_id, u.leg, u.caller,
    u.called, u.service, u.customer_id, u.vendor_id, u.trunk_in, u.trunk_out, u.sip, u.q850, u.pdd_ms,
    u.mos, u.state, u.session_id::text AS session_id, u.destination, u.sell_wallet, u.sell_version,
    u.sell_row, u.sell_prefix, u.sell_billed, u.charge, u.buy_wallet, u.buy_version, u.buy_row,
    u.buy_prefix, u.buy_billed, u.cost
FROM usage AS u
WHERE u.day BETWEEN %(first_day)s AND %(last_day)s
    AND u.start_at >= %(since)s AND u.start_at < %(until)s
    AND (%(called)s::text IS NULL OR u.called = %(called)s)
    AND (%(prefix)s::text IS NULL OR starts_with(u.called, %(prefix)s))
    AND (%(caller)s::text IS NULL OR u.caller = %(caller)s)
    AND (%(call_id)s::text IS NULL OR u.call_id = %(call_id)s)
    AND (%(customer_id)s::bigint IS NULL OR u.customer_id = %(customer_id)s)
    AND (%(vendor_id)s::bigint IS NULL OR u.vendor_id = %(vendor_id)s)
    AND (%(customers)s::bigint[] IS NULL OR u.customer_id = ANY (%(customers)s))
    AND (u.start_at, u.batch_id, u.line) > (%(after_at)s::timestamptz, %(after_batch)s::bigint, %(after_line)s::bigint)
    AND NOT EXISTS (
        SELECT FROM cdr_batch AS b WHERE b.id = u.batch_id AND b.undone_by IS NOT NULL
    )
ORDER BY u.start_at, u.batch_id, u.line
LIMIT %(limit)s

-- name: undone
SELECT id FROM cdr_batch WHERE undone_by IS NOT NULL ORDER BY id;

-- name: revisions
-- The last one whose batch was not taken back counts; 0 is the customer's leg, 1 the vendor's.
SELECT DISTINCT ON (r.day, r.batch_id, r.line, r.leg)
    r.day, r.batch_id, r.line, r.leg, r.wallet_id, r.version_id, r.row_no, r.prefix, r.destination,
    r.billed, r.amount
FROM unnest(%(days)s::date[], %(batches)s::bigint[], %(lines)s::bigint[]) AS k (day, batch_id, line)
JOIN usage_revision AS r ON r.day = k.day AND r.batch_id = k.batch_id AND r.line = k.line
JOIN cdr_batch AS b ON b.id = r.by_batch
WHERE r.day BETWEEN %(first_day)s AND %(last_day)s AND r.leg IN (0, 1) AND b.undone_by IS NULL
ORDER BY r.day, r.batch_id, r.line, r.leg, r.by_batch DESC;

-- name: parties
SELECT id, code FROM party WHERE id = ANY(%s);

-- name: trunks
SELECT id, code FROM trunk WHERE id = ANY(%s);

-- name: wallets
SELECT id, currency FROM wallet WHERE id = ANY(%s);

-- name: versions
SELECT v.id, c.code AS card, v.version, c.currency
FROM rate_version AS v JOIN rate_card AS c ON c.id = v.card_id
WHERE v.id = ANY(%s);

-- name: batches
SELECT b.id, b.switch, COALESCE(f.name, '') AS file
FROM cdr_batch AS b LEFT JOIN cdr_file AS f ON f.id = b.file_id
WHERE b.id = ANY(%s);

-- name: hours
-- Grouped by what is asked for only; money is never added up over currencies.
SELECT s.*, COALESCE(customer.code, '') AS customer, COALESCE(vendor.code, '') AS vendor,
    COALESCE(t_in.code, '') AS trunk_in, COALESCE(t_out.code, '') AS trunk_out
FROM (
    SELECT
        CASE WHEN %(by_day)s THEN day END AS day,
        CASE WHEN %(by_hour)s THEN hour END AS hour,
        CASE WHEN %(by_customer)s THEN customer_id END AS customer_id,
        CASE WHEN %(by_vendor)s THEN vendor_id END AS vendor_id,
        CASE WHEN %(by_trunk_in)s THEN trunk_in END AS trunk_in_id,
        CASE WHEN %(by_trunk_out)s THEN trunk_out END AS trunk_out_id,
        CASE WHEN %(by_service)s THEN service ELSE '' END AS service,
        CASE WHEN %(by_destination)s THEN destination ELSE '' END AS destination,
        CASE WHEN %(by_prefix)s THEN prefix ELSE '' END AS prefix,
        sell_currency, CASE WHEN %(costs)s THEN buy_currency ELSE '' END AS buy_currency,
        sum(attempts)::bigint AS attempts, sum(answers)::bigint AS answers,
        sum(effective)::bigint AS effective, sum(duration_ms)::bigint AS duration_ms,
        sum(sell_billed)::bigint AS sell_billed,
        CASE WHEN %(costs)s THEN sum(buy_billed) ELSE 0 END::bigint AS buy_billed,
        sum(pdd_ms)::bigint AS pdd_ms, sum(pdd_count)::bigint AS pdd_count,
        sum(revenue) AS revenue, CASE WHEN %(costs)s THEN sum(cost) ELSE 0 END AS cost
    FROM usage_hour
    WHERE day BETWEEN %(first_day)s AND %(last_day)s AND hour >= %(since)s AND hour < %(until)s
        AND (%(customer_id)s::bigint IS NULL OR customer_id = %(customer_id)s)
        AND (%(vendor_id)s::bigint IS NULL OR vendor_id = %(vendor_id)s)
        AND (%(customers)s::bigint[] IS NULL OR customer_id = ANY (%(customers)s))
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    -- What was taken back adds up to nothing and is not shown.
    HAVING sum(attempts) <> 0 OR sum(revenue) <> 0 OR (%(costs)s AND sum(cost) <> 0)
) AS s
LEFT JOIN party AS customer ON customer.id = s.customer_id
LEFT JOIN party AS vendor ON vendor.id = s.vendor_id
LEFT JOIN trunk AS t_in ON t_in.id = s.trunk_in_id
LEFT JOIN trunk AS t_out ON t_out.id = s.trunk_out_id
ORDER BY s.day, s.hour, customer, vendor, trunk_in, trunk_out, s.service, s.destination, s.prefix,
    s.sell_currency, s.buy_currency
LIMIT %(limit)s OFFSET %(skip)s;

-- name: no_time_limit
SELECT set_config('statement_timeout', '0', true),
    set_config('idle_in_transaction_session_timeout', '0', true);
