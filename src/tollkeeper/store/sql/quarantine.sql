-- name: page
SELECT q.id, q.batch_id, q.file_id, coalesce(f.name, '') AS file, q.switch, q.line, q.reason, q.field, q.value,
       q.detail, q.raw, q.record::text AS record, q.status, q.at, q.resolved_at, q.resolved_by
FROM cdr_quarantine q LEFT JOIN cdr_file f ON f.id = q.file_id
WHERE q.id > %(after)s
  AND (%(reason)s::text IS NULL OR q.reason = %(reason)s)
  AND (%(file_id)s::bigint IS NULL OR q.file_id = %(file_id)s)
  AND (%(switch)s::text IS NULL OR q.switch = %(switch)s)
  AND (%(status)s::text IS NULL OR q.status = %(status)s)
  AND (%(ids)s::bigint[] IS NULL OR q.id = ANY (%(ids)s))
ORDER BY q.id LIMIT %(limit)s

-- name: one
SELECT q.id, q.batch_id, q.file_id, coalesce(f.name, '') AS file, q.switch, q.line, q.reason, q.field, q.value,
       q.detail, q.raw, q.record::text AS record, q.status, q.at, q.resolved_at, q.resolved_by
FROM cdr_quarantine q LEFT JOIN cdr_file f ON f.id = q.file_id
WHERE q.id = %s FOR UPDATE OF q

-- name: count_open
SELECT switch, reason, count(*) AS records, min(at) AS since
FROM cdr_quarantine WHERE status = 'open' GROUP BY 1, 2 ORDER BY 1, 2

-- name: switches
SELECT DISTINCT switch FROM cdr_quarantine q
WHERE q.status = 'open'
  AND (%(reason)s::text IS NULL OR q.reason = %(reason)s)
  AND (%(file_id)s::bigint IS NULL OR q.file_id = %(file_id)s)
  AND (%(switch)s::text IS NULL OR q.switch = %(switch)s)
  AND (%(ids)s::bigint[] IS NULL OR q.id = ANY (%(ids)s))
ORDER BY switch

-- name: drop
UPDATE cdr_quarantine SET status = 'dropped', resolved_at = %s, resolved_by = %s
WHERE id = ANY (%s::bigint[]) AND status = 'open'

-- name: resolve
UPDATE cdr_quarantine SET status = 'replayed', resolved_at = %s, resolved_by = %s, replay_batch = %s
WHERE id = ANY (%s::bigint[]) AND status = 'open'

-- name: set_record
UPDATE cdr_quarantine SET record = %s::jsonb WHERE id = %s

-- name: set_reasons
UPDATE cdr_quarantine q SET reason = n.reason, field = n.field, value = n.value, detail = n.detail
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[]) AS n(id, reason, field, value, detail)
WHERE q.id = n.id AND q.status = 'open'

-- name: lock_told
SELECT pg_advisory_xact_lock(hashtextextended(%s, 7220))

-- name: told
SELECT id FROM cdr_quarantine WHERE told = %s AND told <> ''

-- name: add_told
INSERT INTO cdr_quarantine (batch_id, switch, line, reason, field, value, detail, raw, record, at, told)
VALUES (%(batch_id)s, %(switch)s, 1, %(reason)s, %(field)s, %(value)s, %(detail)s, %(raw)s, %(record)s::jsonb, %(at)s,
        %(told)s)
