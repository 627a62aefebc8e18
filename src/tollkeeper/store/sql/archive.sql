-- name: take
SELECT pg_try_advisory_xact_lock(7201, 7) AS taken;

-- name: due
-- Old enough, and no batch wrote to them of late: while a backlog is loaded, its days stay.
-- Materialized: the end of a name is a day only where it is known to be that of a partition.
WITH days AS MATERIALIZED (
    SELECT child.relname
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'usage'::regclass
)
SELECT day
FROM (SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day FROM days) AS days
WHERE day < %(before)s AND NOT EXISTS (
    SELECT FROM usage_key AS k JOIN cdr_batch AS b ON b.id = k.batch_id
    WHERE k.day = days.day AND b.at > %(quiet)s
)
ORDER BY day
LIMIT %(limit)s;

-- name: exists
SELECT to_regclass(%s) IS NOT NULL AS there;

-- name: hold
-- Readers go on, writers wait: what is copied out is all there is.
LOCK TABLE {partition} IN SHARE MODE;

-- name: totals
SELECT count(*) AS rows, COALESCE(sum(charge), 0) AS charge, COALESCE(sum(cost), 0) AS cost
FROM {partition};

-- name: copy
COPY (
    SELECT day, batch_id, line, start_at, answer_at, duration_ms, call_id, leg, caller, called,
        service, customer_id, vendor_id, trunk_in, trunk_out, sip, q850, pdd_ms, mos, state, session_id,
        destination, sell_wallet, sell_version, sell_row, sell_prefix, sell_billed, charge,
        buy_wallet, buy_version, buy_row, buy_prefix, buy_billed, cost
    FROM {partition}
) TO STDOUT (FORMAT csv)

-- name: short_wait
SET LOCAL lock_timeout = '2s';

-- name: lock_parent
-- In the order in which dropping takes locks.
LOCK TABLE ONLY {parent} IN ACCESS EXCLUSIVE MODE;

-- name: drop
DROP TABLE IF EXISTS {partition};

-- name: next_part
SELECT COALESCE(max(part), 0) + 1 AS part FROM archive_day WHERE day = %s;

-- name: add_part
INSERT INTO archive_day (day, part, uri, rows, bytes, charge, cost, sha256, files, at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: parts
SELECT day, part, uri, rows, bytes, charge, cost, sha256, files, at, purged_at
FROM archive_day
WHERE day BETWEEN %s AND %s AND purged_at IS NULL
ORDER BY day, part;

-- name: add_trash
INSERT INTO archive_trash (uri, at) VALUES (%s, %s) ON CONFLICT (uri) DO UPDATE SET at = excluded.at;

-- name: trash
SELECT uri FROM archive_trash ORDER BY at, uri;

-- name: clear_trash
DELETE FROM archive_trash WHERE uri = %s;

-- name: purge_plan
WITH tables AS MATERIALIZED (
    SELECT child.relname, pg_total_relation_size(child.oid) AS bytes
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = ANY (%(parents)s::regclass[])
), days AS (
    SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day, sum(bytes) AS bytes FROM tables GROUP BY 1
), archived AS (
    SELECT day, count(*) AS parts, sum(rows) AS rows, sum(bytes) AS bytes
    FROM archive_day WHERE purged_at IS NULL GROUP BY day
)
SELECT day, COALESCE(days.bytes, 0)::bigint AS table_bytes, COALESCE(parts, 0) AS parts,
    COALESCE(rows, 0)::bigint AS archived_rows, COALESCE(archived.bytes, 0)::bigint AS archived_bytes
FROM days FULL JOIN archived USING (day)
WHERE day < %(before)s
ORDER BY day;

-- name: purge_parts
UPDATE archive_day SET purged_at = %s WHERE day = %s AND purged_at IS NULL RETURNING uri;

-- name: purged_before
SELECT before FROM usage_purged;

-- name: set_purged_before
UPDATE usage_purged SET before = greatest(before, %s);
