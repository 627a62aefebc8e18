-- name: batches
-- Batches that still count and have records of a day; usage_key knows which.
SELECT DISTINCT k.batch_id
FROM usage_key k JOIN cdr_batch b ON b.id = k.batch_id AND b.undone_by IS NULL
WHERE k.day = %(day)s AND (%(file_id)s::bigint IS NULL OR b.file_id = %(file_id)s)
ORDER BY k.batch_id

-- name: days
SELECT DISTINCT k.day
FROM usage_key k JOIN cdr_batch b ON b.id = k.batch_id AND b.undone_by IS NULL
WHERE k.day BETWEEN %(since)s AND %(until)s AND (%(file_id)s::bigint IS NULL OR b.file_id = %(file_id)s)
ORDER BY k.day

-- name: records
-- One batch's records of a day at their present value. Of a call that was charged live before or after, the
-- customer's leg is not ours to price.
WITH revised AS (
    SELECT DISTINCT ON (r.line, r.leg) r.line, r.leg, r.wallet_id, r.prefix, r.destination, r.billed, r.amount, b.kind
    FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND b.undone_by IS NULL
    WHERE r.day = %(day)s AND r.batch_id = %(batch_id)s AND r.leg IN (0, 1)
    ORDER BY r.line, r.leg, r.by_batch DESC
)
SELECT u.line, (extract(epoch FROM u.start_at) * 1000000)::bigint AS start,
       (extract(epoch FROM u.answer_at) * 1000000)::bigint AS answer, u.duration_ms, u.called, u.service,
       u.customer_id, u.vendor_id, u.trunk_in, u.trunk_out, u.sip, u.q850, u.pdd_ms,
       CASE WHEN s.kind = 'late_match' THEN 'matched' ELSE u.state END AS state,
       coalesce(s.destination, u.destination) AS destination, coalesce(s.prefix, u.sell_prefix) AS prefix,
       coalesce(s.wallet_id, u.sell_wallet) AS sell_wallet, coalesce(s.billed, u.sell_billed) AS sell_billed,
       (coalesce(s.amount, u.charge) * 100000000)::bigint AS charge,
       coalesce(b.wallet_id, u.buy_wallet) AS buy_wallet, coalesce(b.billed, u.buy_billed) AS buy_billed,
       (coalesce(b.amount, u.cost) * 100000000)::bigint AS cost,
       coalesce(sw.currency, '') AS sell_currency, coalesce(bw.currency, '') AS buy_currency
FROM usage u
LEFT JOIN revised s ON s.line = u.line AND s.leg = 0
LEFT JOIN revised b ON b.line = u.line AND b.leg = 1
LEFT JOIN wallet sw ON sw.id = coalesce(s.wallet_id, u.sell_wallet)
LEFT JOIN wallet bw ON bw.id = coalesce(b.wallet_id, u.buy_wallet)
WHERE u.day = %(day)s AND u.batch_id = %(batch_id)s
  AND u.start_at >= %(since_at)s AND u.start_at < %(until_at)s
  AND (%(customer)s::bigint IS NULL OR u.customer_id = %(customer)s)
  AND (%(vendor)s::bigint IS NULL OR u.vendor_id = %(vendor)s)
  AND (%(called)s::text IS NULL OR starts_with(u.called, %(called)s))
  AND (%(destination)s::text IS NULL OR coalesce(s.destination, u.destination) = %(destination)s)

-- name: legs
-- The resellers' legs of the same.
WITH revised AS (
    SELECT DISTINCT ON (r.line, r.leg) r.line, r.leg, r.wallet_id, r.amount
    FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND b.undone_by IS NULL
    WHERE r.day = %(day)s AND r.batch_id = %(batch_id)s AND r.leg > 1
    ORDER BY r.line, r.leg, r.by_batch DESC
)
SELECT l.line, l.level, l.party_id, coalesce(r.wallet_id, l.wallet_id) AS wallet_id,
       (coalesce(r.amount, l.charge) * 100000000)::bigint AS amount
FROM usage_leg l LEFT JOIN revised r ON r.line = l.line AND r.leg = l.level + 1
WHERE l.day = %(day)s AND l.batch_id = %(batch_id)s

-- name: later_revisions
-- Revisions that still count of what other batches wrote (of these), or of the same legs after this batch.
SELECT DISTINCT r.by_batch FROM usage_revision r
JOIN cdr_batch b ON b.id = r.by_batch AND b.undone_by IS NULL AND b.kind = 'rerate'
WHERE r.batch_id = ANY (%s::bigint[])
ORDER BY 1

-- name: revisions_after
SELECT DISTINCT later.by_batch
FROM usage_revision r
JOIN usage_revision later ON later.day = r.day AND later.batch_id = r.batch_id AND later.line = r.line
    AND later.leg = r.leg AND later.by_batch > r.by_batch
JOIN cdr_batch b ON b.id = later.by_batch AND b.undone_by IS NULL
WHERE r.by_batch = %s
ORDER BY 1

-- name: present_money
-- What batches have cost each wallet as it stands: records priced here at their present value, and
-- what corrections made of calls that were charged live.
WITH revised AS (
    SELECT DISTINCT ON (r.day, r.batch_id, r.line, r.leg) r.day, r.batch_id, r.line, r.leg, r.wallet_id, r.amount
    FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND (b.undone_by IS NULL OR b.id = ANY (%(batches)s))
    WHERE r.batch_id = ANY (%(batches)s)
    ORDER BY r.day, r.batch_id, r.line, r.leg, r.by_batch DESC
), leg AS (
    SELECT coalesce(r.wallet_id, u.sell_wallet) AS wallet_id, 'rated' AS code,
           CASE WHEN u.state = 'rated' THEN coalesce(r.amount, u.charge) ELSE r.amount - u.charge END AS amount
    FROM usage u LEFT JOIN revised r ON r.day = u.day AND r.batch_id = u.batch_id AND r.line = u.line AND r.leg = 0
    WHERE u.batch_id = ANY (%(batches)s) AND u.day = ANY (%(days)s) AND (u.state = 'rated' OR r.amount IS NOT NULL)
    UNION ALL
    SELECT coalesce(r.wallet_id, u.buy_wallet), 'cost', coalesce(r.amount, u.cost)
    FROM usage u LEFT JOIN revised r ON r.day = u.day AND r.batch_id = u.batch_id AND r.line = u.line AND r.leg = 1
    WHERE u.batch_id = ANY (%(batches)s) AND u.day = ANY (%(days)s)
    UNION ALL
    SELECT coalesce(r.wallet_id, l.wallet_id), 'rated', coalesce(r.amount, l.charge)
    FROM usage_leg l
    LEFT JOIN revised r ON r.day = l.day AND r.batch_id = l.batch_id AND r.line = l.line AND r.leg = l.level + 1
    WHERE l.batch_id = ANY (%(batches)s) AND l.day = ANY (%(days)s)
)
SELECT wallet_id, code, sum(amount) AS amount FROM leg WHERE wallet_id > 0 GROUP BY 1, 2 HAVING sum(amount) <> 0
ORDER BY 1, 2

-- name: days_of_batches
SELECT DISTINCT day FROM usage_key WHERE batch_id = ANY (%s::bigint[]) ORDER BY day

-- name: archived
SELECT DISTINCT day FROM archive_day WHERE day = ANY (%s::date[]) AND purged_at IS NULL ORDER BY day

-- name: entries_of_batch
SELECT wallet_id, code, sum(amount) AS amount FROM entry WHERE batch_id = %s GROUP BY 1, 2 ORDER BY 1, 2

-- name: take_back_hours
-- The sums of batches of files, from the records themselves: their own rows may have been put together.
WITH revised AS (
    SELECT DISTINCT ON (r.day, r.batch_id, r.line, r.leg) r.day, r.batch_id, r.line, r.leg, r.prefix, r.destination,
           r.billed, r.amount, r.wallet_id
    FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND (b.undone_by IS NULL OR b.id = ANY (%(batches)s))
    WHERE r.batch_id = ANY (%(batches)s)
    ORDER BY r.day, r.batch_id, r.line, r.leg, r.by_batch DESC
)
INSERT INTO usage_hour
SELECT u.day, date_trunc('hour', u.start_at), %(by)s, u.customer_id, u.vendor_id, u.trunk_in, u.trunk_out, u.service,
       coalesce(s.destination, u.destination), coalesce(s.prefix, u.sell_prefix), coalesce(sw.currency, ''),
       coalesce(bw.currency, ''), -count(*),
       -count(*) FILTER (WHERE u.duration_ms > 0 OR u.answer_at IS NOT NULL),
       -count(*) FILTER (WHERE u.duration_ms > 0 OR u.answer_at IS NOT NULL OR u.q850 = ANY (%(effective_q850)s)
                            OR u.sip = ANY (%(effective_sip)s)),
       -sum(u.duration_ms), -sum(coalesce(s.billed, u.sell_billed)), -sum(coalesce(b.billed, u.buy_billed)),
       -coalesce(sum(u.pdd_ms), 0), -count(u.pdd_ms), -sum(coalesce(s.amount, u.charge)),
       -sum(coalesce(b.amount, u.cost))
FROM usage u
LEFT JOIN revised s ON s.day = u.day AND s.batch_id = u.batch_id AND s.line = u.line AND s.leg = 0
LEFT JOIN revised b ON b.day = u.day AND b.batch_id = u.batch_id AND b.line = u.line AND b.leg = 1
LEFT JOIN wallet sw ON sw.id = coalesce(s.wallet_id, u.sell_wallet)
LEFT JOIN wallet bw ON bw.id = coalesce(b.wallet_id, u.buy_wallet)
WHERE u.batch_id = ANY (%(batches)s) AND u.day = ANY (%(days)s)
GROUP BY u.day, date_trunc('hour', u.start_at), u.customer_id, u.vendor_id, u.trunk_in, u.trunk_out, u.service,
         coalesce(s.destination, u.destination), coalesce(s.prefix, u.sell_prefix), coalesce(sw.currency, ''),
         coalesce(bw.currency, '')

-- name: negate_hours
-- Those of a re-rating, whose rows are never put together with others.
INSERT INTO usage_hour
SELECT day, hour, %s, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency,
       buy_currency, -attempts, -answers, -effective, -duration_ms, -sell_billed, -buy_billed, -pdd_ms, -pdd_count,
       -revenue, -cost
FROM usage_hour WHERE batch_id = ANY (%s::bigint[])

-- name: batch
SELECT id, kind, file_id, switch, undone_by FROM cdr_batch WHERE id = %s FOR UPDATE

-- name: close_quarantine
UPDATE cdr_quarantine SET status = 'dropped', resolved_at = %s, resolved_by = %s
WHERE file_id = %s AND status = 'open'

-- name: drop_file_halves
DELETE FROM cdr_half WHERE file_id = %s

-- name: set_summary
UPDATE cdr_batch SET summary = %s, note = %s WHERE id = %s

-- name: day_revised
-- What was made of the records of an archived day afterwards, at its present value.
SELECT DISTINCT ON (r.batch_id, r.line, r.leg) r.batch_id, r.line, r.leg, r.wallet_id, r.destination,
       (r.amount * 100000000)::bigint AS amount, CASE WHEN r.leg = 0 AND b.kind = 'late_match' THEN 'matched' END AS state
FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND b.undone_by IS NULL
WHERE r.day = %(day)s AND r.leg IN (0, 1)
ORDER BY r.batch_id, r.line, r.leg, r.by_batch DESC

-- name: day_legs
-- The resellers' legs of the same, as of legs.
WITH revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line, r.leg) r.batch_id, r.line, r.leg, r.wallet_id, r.amount
    FROM usage_revision r JOIN cdr_batch b ON b.id = r.by_batch AND b.undone_by IS NULL
    WHERE r.day = %(day)s AND r.leg > 1
    ORDER BY r.batch_id, r.line, r.leg, r.by_batch DESC
)
SELECT l.batch_id, l.line, l.level, l.party_id, coalesce(r.wallet_id, l.wallet_id) AS wallet_id,
       (coalesce(r.amount, l.charge) * 100000000)::bigint AS amount
FROM usage_leg l LEFT JOIN revised r ON r.batch_id = l.batch_id AND r.line = l.line AND r.leg = l.level + 1
WHERE l.day = %(day)s

-- name: snapshot
-- All that follows in this transaction sees the same moment, and takes the time it needs.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: no_limits
SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)
