-- name: files
SELECT id, source_id, switch, name, sha256, bytes, format, mapping, timezone, status, offset_bytes, lines_done,
       records, rated, matched, duplicate, quarantined, skipped, error, actor, created_at, ended_at
FROM cdr_file
WHERE (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (%(switch)s::text IS NULL OR switch = %(switch)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
ORDER BY id DESC LIMIT %(limit)s

-- name: batches
SELECT b.id, b.kind, b.file_id, coalesce(f.name, '') AS file, b.switch, b.first_line, b.last_line, b.records, b.rated,
       b.matched, b.duplicate, b.quarantined, b.skipped, b.actor, b.note, b.summary, b.at, b.undone_by
FROM cdr_batch b LEFT JOIN cdr_file f ON f.id = b.file_id
WHERE (%(before)s::bigint IS NULL OR b.id < %(before)s)
  AND (%(kind)s::text IS NULL OR b.kind = %(kind)s)
  AND (%(file_id)s::bigint IS NULL OR b.file_id = %(file_id)s)
  AND (%(switch)s::text IS NULL OR b.switch = %(switch)s)
ORDER BY b.id DESC LIMIT %(limit)s

-- name: reasons
SELECT reason, status, count(*) AS records FROM cdr_quarantine WHERE file_id = %s GROUP BY 1, 2 ORDER BY 1, 2

-- name: file_money
-- Of days on which the file's batches were written only: the journal is cut by the day.
SELECT e.currency, e.code, sum(e.amount) AS amount, count(*) AS entries
FROM entry e
WHERE e.batch_id = ANY (%(batches)s::bigint[]) AND e.day = ANY (%(days)s::date[])
GROUP BY 1, 2 ORDER BY 1, 2

-- name: wallet_currencies
SELECT id, currency FROM wallet WHERE id = ANY (%s::bigint[])

-- name: mismatches
SELECT m.id, m.kind, m.day, m.batch_id, m.file_id, coalesce(f.name, '') AS file, m.line, m.call_id,
       coalesce(c.code, '') AS customer, coalesce(v.code, '') AS vendor, m.session_id::text AS session_id, m.expected,
       m.found, m.detail, m.at
FROM cdr_mismatch m
JOIN cdr_batch b ON b.id = m.batch_id AND b.undone_by IS NULL
LEFT JOIN cdr_file f ON f.id = m.file_id
LEFT JOIN party c ON c.id = m.customer_id
LEFT JOIN party v ON v.id = m.vendor_id
WHERE m.day BETWEEN %(first)s AND %(last)s
  AND (%(before)s::bigint IS NULL OR m.id < %(before)s)
  AND (%(kind)s::text IS NULL OR m.kind = %(kind)s)
  AND (%(customer)s::bigint IS NULL OR m.customer_id = %(customer)s)
ORDER BY m.id DESC LIMIT %(limit)s

-- name: count_mismatches
SELECT m.kind, count(*) AS records
FROM cdr_mismatch m JOIN cdr_batch b ON b.id = m.batch_id AND b.undone_by IS NULL
WHERE m.day BETWEEN %(first)s AND %(last)s
  AND (%(customer)s::bigint IS NULL OR m.customer_id = %(customer)s)
GROUP BY 1 ORDER BY 1

-- name: switches_with_old_halves
SELECT DISTINCT h.switch FROM cdr_half h JOIN cdr_file f ON f.id = h.file_id
WHERE h.at < %(before)s AND coalesce(f.ended_at, f.created_at) < %(before)s
ORDER BY 1

-- name: take_old_halves
DELETE FROM cdr_half h USING cdr_file f
WHERE h.switch = %(switch)s AND f.id = h.file_id AND h.at < %(before)s
  AND coalesce(f.ended_at, f.created_at) < %(before)s
RETURNING h.file_id, h.key, h.begins, h.at, h.line, h.raw, h.record::text AS record

-- name: add_counts
UPDATE cdr_file SET records = records + %(records)s, quarantined = quarantined + %(records)s WHERE id = %(id)s

-- name: set_reading
UPDATE cdr_file SET format = %s, mapping = %s, timezone = %s WHERE id = %s

-- name: is_loading
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint = ((%(key)s::bigint >> 32) & 4294967295) AND objid::bigint = (%(key)s::bigint & 4294967295)
) AS loading

-- name: loaded_days
-- The days of records that batches have written since a moment.
SELECT DISTINCT k.day FROM usage_key k JOIN cdr_batch b ON b.id = k.batch_id WHERE b.at >= %s ORDER BY 1

-- name: summarize
SELECT sum(brin_summarize_new_values(i.indexrelid)) AS ranges
FROM unnest(%s::date[]) AS day, unnest(ARRAY['usage_', 'usage_leg_']) AS parent, pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam AND m.amname = 'brin'
WHERE i.indrelid = to_regclass(parent || to_char(day, 'YYYYMMDD'))

-- name: ended_calls
-- Records that waited for the end of a call that was charged live, and it has ended.
SELECT q.id FROM cdr_quarantine q
WHERE q.status = 'open' AND q.reason = 'session_open'
  AND NOT EXISTS (SELECT FROM live_session l WHERE l.key = q.switch || '/' || (q.record->>'call_id'))
ORDER BY q.id LIMIT %s

-- name: switches
SELECT switch FROM cdr_source WHERE enabled
UNION SELECT switch FROM cdr_file WHERE status <> 'rolled_back'
UNION SELECT switch FROM api_key WHERE switch <> '' AND 'charge' = ANY (scopes)
ORDER BY 1
