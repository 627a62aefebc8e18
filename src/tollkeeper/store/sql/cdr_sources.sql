-- name: source
SELECT id, code, kind, switch, format, mapping, timezone, settings, secret, enabled, poll_seconds,
       last_run_at, last_error, created_at
FROM cdr_source WHERE code = %s

-- name: sources
SELECT id, code, kind, switch, format, mapping, timezone, settings, secret, enabled, poll_seconds,
       last_run_at, last_error, created_at
FROM cdr_source WHERE code > %s ORDER BY code LIMIT %s

-- name: due
SELECT id, code, kind, switch, format, mapping, timezone, settings, secret, enabled, poll_seconds,
       last_run_at, last_error, created_at
FROM cdr_source
WHERE enabled AND (last_run_at IS NULL OR last_run_at + make_interval(secs => poll_seconds) <= %s)
ORDER BY last_run_at NULLS FIRST, id

-- name: lock
SELECT id FROM cdr_source WHERE code = %s FOR NO KEY UPDATE

-- name: add
INSERT INTO cdr_source (code, kind, switch, format, mapping, timezone, settings, secret, enabled, poll_seconds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: change
UPDATE cdr_source
SET switch = %s, format = %s, mapping = %s, timezone = %s, settings = %s, secret = %s, enabled = %s,
    poll_seconds = %s, last_run_at = NULL, last_error = ''
WHERE id = %s

-- name: try_run
SELECT pg_try_advisory_lock(7203, %s::int) AS taken

-- name: position
SELECT position FROM cdr_source WHERE id = %s

-- name: write_position
UPDATE cdr_source SET position = %s WHERE id = %s

-- name: note_run
UPDATE cdr_source SET last_run_at = %s, last_error = %s WHERE id = %s

-- name: run_soon
UPDATE cdr_source SET last_run_at = NULL WHERE id = %s

-- name: file
SELECT id, status, name, error FROM cdr_file WHERE switch = %s AND sha256 = %s AND status <> 'rolled_back'

-- name: announce_file
INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, mapping, timezone, actor)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (switch, sha256) WHERE status <> 'rolled_back' DO NOTHING
RETURNING id, status, name, error

-- name: fail_file
INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, mapping, timezone, actor,
                      status, error, ended_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'failed', %s, %s)
ON CONFLICT (switch, sha256) WHERE status <> 'rolled_back'
DO UPDATE SET status = 'failed', error = excluded.error, ended_at = excluded.ended_at
WHERE cdr_file.status IN ('loading', 'failed')

-- name: revive_file
UPDATE cdr_file SET status = 'loading', error = '', ended_at = NULL
WHERE switch = %s AND sha256 = %s AND status = 'failed'
