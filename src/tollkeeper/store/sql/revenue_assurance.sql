-- name: unrated
-- What came on a day and is not in the books, by reason.
SELECT q.switch, q.reason, count(*) AS records, min(q.detail) AS example
FROM cdr_quarantine q JOIN cdr_batch b ON b.id = q.batch_id AND b.undone_by IS NULL
WHERE q.status = 'open' AND q.at >= %(since)s AND q.at < %(until)s
GROUP BY q.switch, q.reason
ORDER BY count(*) DESC, q.switch, q.reason

-- name: unrated_in_all
SELECT count(*) AS records
FROM cdr_quarantine q JOIN cdr_batch b ON b.id = q.batch_id AND b.undone_by IS NULL
WHERE q.status = 'open'

-- name: unmatched
-- Sessions of the day that cost something and of whose call no file says anything, of switches
-- that do deliver files. The record of a call at midnight may be of the day before or after.
WITH delivering AS (
    SELECT switch FROM cdr_file WHERE status = 'done'
    UNION
    SELECT switch FROM cdr_source WHERE enabled
), named AS (
    SELECT b.switch || '/' || u.call_id AS key
    FROM usage u JOIN cdr_batch b ON b.id = u.batch_id AND b.undone_by IS NULL
    WHERE u.day BETWEEN %(day)s::date - 1 AND %(day)s::date + 1
)
SELECT s.id::text AS session_id, s.key, p.code AS party, s.closed_at, s.charge,
       split_part(s.key, '/', 1) AS switch,
       coalesce((SELECT w.currency FROM json_array_elements(s.body->'legs') AS leg
                 JOIN wallet w ON w.id = (leg->>'wallet_id')::bigint
                 WHERE w.party_id = s.party_id LIMIT 1), '') AS currency
FROM closed_session s JOIN party p ON p.id = s.party_id
WHERE s.opened_day = %(day)s AND s.charge > 0
  AND split_part(s.key, '/', 1) IN (SELECT switch FROM delivering)
  AND NOT EXISTS (SELECT FROM named WHERE named.key = s.key)
ORDER BY s.closed_at, s.key

-- name: losses
-- Destinations that cost more than they brought, where both are in one currency.
SELECT destination, sell_currency AS currency, sum(answers)::bigint AS answers, sum(duration_ms)::bigint AS duration_ms,
       sum(revenue) AS revenue, sum(cost) AS cost
FROM usage_hour
WHERE day = %(day)s AND sell_currency = buy_currency AND sell_currency <> ''
GROUP BY destination, sell_currency
HAVING sum(revenue) < sum(cost)
ORDER BY sum(revenue) - sum(cost), destination, sell_currency
LIMIT %(most)s

-- name: trade
SELECT currency, sum(revenue) AS revenue, sum(cost) AS cost
FROM (
    SELECT sell_currency AS currency, revenue, 0 AS cost FROM usage_hour WHERE day = %(day)s
    UNION ALL
    SELECT buy_currency, 0, cost FROM usage_hour WHERE day = %(day)s
) AS both_sides
WHERE currency <> ''
GROUP BY currency
ORDER BY currency

-- name: sequences
-- Running numbers of the parts that were loaded on a day, as bulk.reconcile.sequence_summary has them.
SELECT b.switch, coalesce(f.name, '') AS file, b.summary->'sequence' AS sequence
FROM cdr_batch b LEFT JOIN cdr_file f ON f.id = b.file_id
WHERE b.kind = 'load' AND b.undone_by IS NULL AND b.at >= %(since)s AND b.at < %(until)s
  AND jsonb_typeof(b.summary->'sequence') = 'object'
ORDER BY b.switch, b.id

-- name: silent
-- Sources that should have brought a file by now.
SELECT s.code, s.switch, s.kind, s.poll_seconds, s.last_run_at, s.last_error, max(f.created_at) AS last_file_at
FROM cdr_source s LEFT JOIN cdr_file f ON f.source_id = s.id
WHERE s.enabled AND s.kind <> 'manual'
GROUP BY s.id
HAVING coalesce(max(f.created_at), s.created_at)
    < %(now)s::timestamptz - make_interval(secs => s.poll_seconds * %(polls)s)
ORDER BY s.code
