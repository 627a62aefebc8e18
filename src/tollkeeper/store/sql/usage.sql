-- name: try_lock
SELECT pg_try_advisory_lock(%s) AS taken

-- name: unlock
SELECT pg_advisory_unlock(%s) AS freed

-- name: unlock_all
SELECT pg_advisory_unlock_all()

-- name: missing_days
SELECT day FROM unnest(%s::text[]) AS parent, unnest(%s::date[]) AS day
WHERE to_regclass(parent || '_' || to_char(day, 'YYYYMMDD')) IS NULL
GROUP BY day ORDER BY day

-- name: ensure_days
SELECT ensure_partitions(%s::text[], %s, %s) AS made

-- name: scattered_days
SELECT DISTINCT day FROM usage_hour WHERE day < %s AND batch_id <> 0 ORDER BY day

-- name: compact_hours
WITH gone AS (
    -- The sums of a re-rating stay its own, so that it can be taken back.
    DELETE FROM usage_hour h WHERE day = %(day)s AND NOT EXISTS (
        SELECT FROM cdr_batch b WHERE b.id = h.batch_id AND b.kind = 'rerate' AND b.undone_by IS NULL
    ) RETURNING *
), kept AS (
    INSERT INTO usage_hour
    SELECT day, hour, 0, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency,
           buy_currency, sum(attempts), sum(answers), sum(effective), sum(duration_ms), sum(sell_billed),
           sum(buy_billed), sum(pdd_ms), sum(pdd_count), sum(revenue), sum(cost)
    FROM gone
    GROUP BY day, hour, customer_id, vendor_id, trunk_in, trunk_out, service, destination, prefix, sell_currency,
             buy_currency
    -- What was taken back adds up to nothing.
    HAVING (sum(attempts), sum(answers), sum(effective), sum(duration_ms), sum(sell_billed), sum(buy_billed),
            sum(pdd_ms), sum(pdd_count), sum(revenue), sum(cost)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM kept) AS saved

-- name: secret
SELECT secret FROM usage_secret

-- name: add_keys
INSERT INTO usage_key (day, switch, batch_id, keys, matches) VALUES (%s, %s, %s, %s, %s)

-- name: keys
SELECT id, batch_id, keys, matches FROM usage_key WHERE day = %s AND switch = %s AND id > %s ORDER BY id

-- name: drop_keys
DELETE FROM usage_key WHERE batch_id = ANY (%s::bigint[])

-- name: post_batch
SELECT post_batch_v1(
    %s, %s, %s, %s, %s::bigint[], %s::text[], %s::numeric[], %s::text[], %s::text[]
) AS made

-- name: new_sessions
SELECT key, closed_at FROM closed_session
WHERE opened_day BETWEEN %s AND %s AND closed_at > %s AND starts_with(key, %s) AND ending <> 'refused'

-- name: live_keys
SELECT key FROM live_session WHERE starts_with(key, %s)

-- name: sessions_by_key
SELECT body::text AS body FROM closed_session
WHERE key = ANY (%s::text[]) AND opened_day BETWEEN %s AND %s
ORDER BY opened_day, key

-- name: sessions_by_id
SELECT id, body::text AS body FROM closed_session WHERE id = ANY (%s::uuid[])

-- name: add_file
INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, mapping, timezone, actor, created_at)
VALUES (%(source_id)s, %(switch)s, %(name)s, %(sha256)s, %(bytes)s, %(format)s, %(mapping)s, %(timezone)s, %(actor)s,
        %(at)s)
ON CONFLICT (switch, sha256) WHERE status <> 'rolled_back' DO NOTHING
RETURNING id, source_id, switch, name, sha256, bytes, format, mapping, timezone, status, offset_bytes, lines_done,
          records, rated, matched, duplicate, quarantined, skipped, error, actor, created_at, ended_at

-- name: find_file
SELECT id, source_id, switch, name, sha256, bytes, format, mapping, timezone, status, offset_bytes, lines_done,
       records, rated, matched, duplicate, quarantined, skipped, error, actor, created_at, ended_at
FROM cdr_file WHERE switch = %s AND sha256 = %s AND status <> 'rolled_back'

-- name: file
SELECT id, source_id, switch, name, sha256, bytes, format, mapping, timezone, status, offset_bytes, lines_done,
       records, rated, matched, duplicate, quarantined, skipped, error, actor, created_at, ended_at
FROM cdr_file WHERE id = %s

-- name: advance_file
UPDATE cdr_file
SET offset_bytes = %(offset)s, lines_done = %(line)s, records = records + %(records)s, rated = rated + %(rated)s,
    matched = matched + %(matched)s, duplicate = duplicate + %(duplicate)s, quarantined = quarantined + %(quarantined)s,
    skipped = skipped + %(skipped)s
WHERE id = %(id)s AND status = 'loading' AND lines_done = %(from_line)s

-- name: end_file
UPDATE cdr_file SET status = %s, error = %s, ended_at = %s WHERE id = %s

-- name: resume_file
UPDATE cdr_file SET status = 'loading', error = '', ended_at = NULL WHERE id = %s AND status = 'failed'

-- name: add_batch
INSERT INTO cdr_batch (kind, file_id, switch, first_line, last_line, records, rated, matched, duplicate, quarantined,
                       skipped, actor, note, summary, at)
VALUES (%(kind)s, %(file_id)s, %(switch)s, %(first_line)s, %(last_line)s, %(records)s, %(rated)s, %(matched)s,
        %(duplicate)s, %(quarantined)s, %(skipped)s, %(actor)s, %(note)s, %(summary)s, %(at)s)
RETURNING id

-- name: batches_of_file
SELECT id, undone_by FROM cdr_batch WHERE file_id = %s ORDER BY id

-- name: undo_batches
UPDATE cdr_batch SET undone_by = %s WHERE id = ANY (%s::bigint[]) AND undone_by IS NULL AND kind <> 'rollback'

-- name: halves
SELECT key, begins, at, file_id, line, raw, record::text AS record FROM cdr_half
WHERE switch = %(switch)s AND (%(keys)s::text[] IS NULL OR key = ANY (%(keys)s::text[]))
ORDER BY key, begins DESC

-- name: drop_halves
DELETE FROM cdr_half h USING unnest(%s::text[], %s::boolean[]) AS gone(key, begins)
WHERE h.switch = %s AND h.key = gone.key AND h.begins = gone.begins

-- name: add_halves
INSERT INTO cdr_half (switch, key, begins, at, file_id, line, raw, record)
SELECT %s, key, begins, at, file_id, line, raw, record::jsonb
FROM unnest(%s::text[], %s::boolean[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])
    AS half(key, begins, at, file_id, line, raw, record)
ON CONFLICT (switch, key, begins) DO NOTHING
