-- name: files
SELECT id, name, lines_done, records, rated, matched, duplicate, quarantined FROM cdr_file ORDER BY id

-- name: batches
SELECT id, kind, coalesce(file_id, 0) AS file_id, first_line, last_line, coalesce(undone_by, 0) AS undone_by, records,
       rated, matched, duplicate, quarantined
FROM cdr_batch ORDER BY id

-- name: quarantined
SELECT batch_id, count(*) AS quarantined FROM cdr_quarantine GROUP BY 1

-- name: posted
SELECT batch_id, wallet_id, CASE WHEN code IN ('rated', 'reversal') THEN 'sell' ELSE 'buy' END AS side,
       sum(CASE WHEN code IN ('rated', 'cost') THEN amount ELSE -amount END) AS amount
FROM entry WHERE batch_id IS NOT NULL
GROUP BY 1, 2, 3

-- name: days
-- The days that have a partition of any of these tables.
SELECT DISTINCT to_date(right(child.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent::regclass::text = ANY (%s::text[])
ORDER BY 1

-- name: whole_days
SELECT DISTINCT to_date(right(child.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'usage'::regclass
EXCEPT SELECT day FROM archive_batch
EXCEPT SELECT day FROM archive_day

-- name: day_records
SELECT batch_id, state, sell_wallet, buy_wallet, count(*) AS records, sum(charge) AS charge, sum(cost) AS cost
FROM usage WHERE day = %(day)s
GROUP BY 1, 2, 3, 4

-- name: day_legs
SELECT batch_id, wallet_id, sum(charge) AS amount FROM usage_leg WHERE day = %(day)s GROUP BY 1, 2

-- name: day_changes
-- By how much each batch changed the legs of others: up on the wallet that pays from then on, down on
-- the one that did before. A late match takes away what was posted here; its amount was charged live.
WITH change AS (
    SELECT r.*, y.kind FROM usage_revision r JOIN cdr_batch y ON y.id = r.by_batch WHERE r.day = %(day)s
), placed AS (
    SELECT c.batch_id, c.by_batch, c.leg, c.wallet_id, c.kind, c.amount, c.was,
           coalesce(p.wallet_id, CASE c.leg WHEN 0 THEN u.sell_wallet WHEN 1 THEN u.buy_wallet ELSE l.wallet_id END,
                    c.wallet_id) AS was_wallet
    FROM change c
    LEFT JOIN LATERAL (
        SELECT r.wallet_id FROM usage_revision r JOIN cdr_batch y ON y.id = r.by_batch
        WHERE r.day = %(day)s AND r.batch_id = c.batch_id AND r.line = c.line AND r.leg = c.leg
          AND r.by_batch < c.by_batch AND (y.undone_by IS NULL OR y.undone_by > c.by_batch)
        ORDER BY r.by_batch DESC LIMIT 1
    ) AS p ON true
    LEFT JOIN usage u ON u.day = %(day)s AND u.batch_id = c.batch_id AND u.line = c.line
    LEFT JOIN usage_leg l ON l.day = %(day)s AND l.batch_id = c.batch_id AND l.line = c.line AND l.level = c.leg - 1
)
SELECT batch_id, by_batch, wallet_id, side, sum(amount) AS amount
FROM (
    SELECT batch_id, by_batch, wallet_id, CASE leg WHEN 1 THEN 'buy' ELSE 'sell' END AS side,
           CASE kind WHEN 'late_match' THEN 0 ELSE amount END AS amount
    FROM placed
    UNION ALL
    SELECT batch_id, by_batch, was_wallet, CASE leg WHEN 1 THEN 'buy' ELSE 'sell' END, -was FROM placed
) AS side
GROUP BY 1, 2, 3, 4

-- name: odd_revisions
WITH counting AS (
    SELECT r.*, lag(r.amount) OVER (PARTITION BY r.batch_id, r.line, r.leg ORDER BY r.by_batch) AS before
    FROM usage_revision r JOIN cdr_batch y ON y.id = r.by_batch AND y.undone_by IS NULL
    WHERE r.day = %(day)s
), checked AS (
    SELECT c.by_batch, c.batch_id, c.line, c.leg, c.was,
           coalesce(c.before, CASE c.leg WHEN 0 THEN u.charge WHEN 1 THEN u.cost ELSE coalesce(l.charge, 0) END) AS counted
    FROM counting c
    LEFT JOIN usage u ON u.day = %(day)s AND u.batch_id = c.batch_id AND u.line = c.line
    LEFT JOIN usage_leg l ON l.day = %(day)s AND l.batch_id = c.batch_id AND l.line = c.line AND l.level = c.leg - 1
)
-- A record that is in the archive is not there to compare with: counted is NULL.
SELECT * FROM checked WHERE was <> counted ORDER BY by_batch, batch_id, line, leg LIMIT 1000

-- name: odd_hours
WITH undone AS (
    SELECT id FROM cdr_batch WHERE undone_by IS NOT NULL
), revised AS (
    SELECT DISTINCT ON (r.batch_id, r.line, r.leg) r.*
    FROM usage_revision r
    WHERE r.day = %(day)s AND r.leg IN (0, 1) AND r.by_batch NOT IN (SELECT id FROM undone)
    ORDER BY r.batch_id, r.line, r.leg, r.by_batch DESC
), record AS (
    SELECT date_trunc('hour', u.start_at, 'UTC') AS hour, u.customer_id, u.vendor_id, u.trunk_in, u.trunk_out,
           u.service, coalesce(s.destination, u.destination) AS destination, coalesce(s.prefix, u.sell_prefix) AS prefix,
           coalesce(s.wallet_id, u.sell_wallet) AS sell_wallet, coalesce(s.version_id, u.sell_version) AS sell_version,
           coalesce(b.wallet_id, u.buy_wallet) AS buy_wallet, coalesce(b.version_id, u.buy_version) AS buy_version,
           u.duration_ms, u.answer_at IS NOT NULL OR u.duration_ms > 0 AS answered,
           coalesce(u.q850 = ANY (%(q850)s::smallint[]), false) OR coalesce(u.sip = ANY (%(sip)s::smallint[]), false) AS reached,
           coalesce(s.billed, u.sell_billed) AS sell_billed, coalesce(b.billed, u.buy_billed) AS buy_billed, u.pdd_ms,
           coalesce(s.amount, u.charge) AS charge, coalesce(b.amount, u.cost) AS cost
    FROM usage u
    LEFT JOIN revised s ON s.batch_id = u.batch_id AND s.line = u.line AND s.leg = 0
    LEFT JOIN revised b ON b.batch_id = u.batch_id AND b.line = u.line AND b.leg = 1
    WHERE u.day = %(day)s AND u.batch_id NOT IN (SELECT id FROM undone)
), summed AS (
    SELECT hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_wallet, sell_version,
           buy_wallet, buy_version, count(*) AS attempts, count(*) FILTER (WHERE answered) AS answers,
           count(*) FILTER (WHERE answered OR reached) AS effective, sum(duration_ms) AS duration_ms,
           sum(sell_billed) AS sell_billed, sum(buy_billed) AS buy_billed, sum(coalesce(pdd_ms, 0)) AS pdd_ms,
           count(pdd_ms) AS pdd_count, sum(charge) AS revenue, sum(cost) AS cost
    FROM record GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
), currency AS (
    SELECT v.id, c.currency FROM rate_version v JOIN rate_card c ON c.id = v.card_id
), derived AS (
    SELECT hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix,
           coalesce(sw.currency, sc.currency, '') AS sell_currency, coalesce(bw.currency, bc.currency, '') AS buy_currency,
           ARRAY[sum(attempts), sum(answers), sum(effective), sum(duration_ms), sum(sell_billed), sum(buy_billed),
                 sum(pdd_ms), sum(pdd_count), sum(revenue), sum(cost)] AS sums
    FROM summed
    LEFT JOIN wallet sw ON sw.id = sell_wallet LEFT JOIN currency sc ON sc.id = sell_version
    LEFT JOIN wallet bw ON bw.id = buy_wallet LEFT JOIN currency bc ON bc.id = buy_version
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
), stood AS (
    SELECT hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency, buy_currency,
           ARRAY[sum(attempts), sum(answers), sum(effective), sum(duration_ms), sum(sell_billed), sum(buy_billed),
                 sum(pdd_ms), sum(pdd_count), sum(revenue), sum(cost)] AS sums
    FROM usage_hour WHERE day = %(day)s
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
)
SELECT hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency, buy_currency,
       coalesce(stood.sums, array_fill(0::numeric, ARRAY[10])) AS stands,
       coalesce(derived.sums, array_fill(0::numeric, ARRAY[10])) AS derived
FROM stood FULL JOIN derived USING (
    hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency, buy_currency
)
WHERE coalesce(stood.sums, array_fill(0::numeric, ARRAY[10])) <> coalesce(derived.sums, array_fill(0::numeric, ARRAY[10]))
ORDER BY hour, customer_id, vendor_id, destination, prefix
LIMIT 1000

-- name: exists
SELECT to_regclass(%s) IS NOT NULL AS there

-- name: archived_batches
SELECT batch_id, sum(rated)::bigint AS rated, sum(matched)::bigint AS matched FROM archive_batch GROUP BY 1

-- name: archived_legs
SELECT batch_id, by_batch, wallet_id, side, sum(amount) AS amount FROM archive_leg GROUP BY 1, 2, 3, 4

-- name: note_batches
INSERT INTO archive_batch AS a (day, batch_id, rated, matched)
SELECT %s, batch_id, rated, matched FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS n(batch_id, rated, matched)
ON CONFLICT (day, batch_id) DO UPDATE SET rated = a.rated + excluded.rated, matched = a.matched + excluded.matched

-- name: note_legs
INSERT INTO archive_leg AS a (day, batch_id, by_batch, wallet_id, side, amount)
SELECT %s, batch_id, by_batch, wallet_id, side, amount
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::numeric[])
    AS n(batch_id, by_batch, wallet_id, side, amount)
ON CONFLICT (day, batch_id, by_batch, wallet_id, side) DO UPDATE SET amount = a.amount + excluded.amount
