-- name: add_card
INSERT INTO rate_card (code, name, side, service, currency, decimals, rounding, per, key, owner_id, cost_card_id,
                       markup_percent, markup, floor_price, ceiling_price)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: card
SELECT c.id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding, c.active_version, c.last_version,
       c.created_at, c.per, c.key, cost.code AS cost_card, c.markup_percent, c.markup, c.floor_price, c.ceiling_price,
       owner.code AS owner, c.owner_id
FROM rate_card c LEFT JOIN rate_card cost ON cost.id = c.cost_card_id LEFT JOIN party owner ON owner.id = c.owner_id
WHERE c.code = %s

-- name: lock_card
SELECT c.id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding, c.active_version, c.last_version,
       c.created_at, c.per, c.key, cost.code AS cost_card, c.markup_percent, c.markup, c.floor_price, c.ceiling_price,
       owner.code AS owner, c.owner_id
FROM rate_card c LEFT JOIN rate_card cost ON cost.id = c.cost_card_id LEFT JOIN party owner ON owner.id = c.owner_id
WHERE c.code = %s FOR NO KEY UPDATE OF c

-- name: card_by_id
SELECT c.id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding, c.active_version, c.last_version,
       c.created_at, c.per, c.key, cost.code AS cost_card, c.markup_percent, c.markup, c.floor_price, c.ceiling_price,
       owner.code AS owner, c.owner_id
FROM rate_card c LEFT JOIN rate_card cost ON cost.id = c.cost_card_id LEFT JOIN party owner ON owner.id = c.owner_id
WHERE c.id = %s

-- name: cards
SELECT c.id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding, c.active_version, c.last_version,
       c.created_at, c.per, c.key, cost.code AS cost_card, c.markup_percent, c.markup, c.floor_price, c.ceiling_price,
       owner.code AS owner, c.owner_id
FROM rate_card c LEFT JOIN rate_card cost ON cost.id = c.cost_card_id LEFT JOIN party owner ON owner.id = c.owner_id
WHERE c.code > %s ORDER BY c.code LIMIT %s

-- name: active_versions
SELECT id, active_version FROM rate_card WHERE active_version IS NOT NULL

-- name: take_version
UPDATE rate_card SET last_version = last_version + 1 WHERE id = %s RETURNING last_version

-- name: set_active
UPDATE rate_card SET active_version = %s WHERE id = %s

-- name: add_version
INSERT INTO rate_version (card_id, version, base_version, mode, file_name, sha256, rows_in, rows_stored, rows_refused,
                          rows_repeated, rows_closing, row_count, summary, created_by, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: version
SELECT id, version, base_version, replaced_version, status, mode, file_name, sha256, rows_in, rows_stored,
       rows_refused, rows_repeated, rows_closing, row_count, summary, created_by, created_at, activated_at, retired_at
FROM rate_version WHERE card_id = %s AND version = %s

-- name: versions
SELECT id, version, base_version, replaced_version, status, mode, file_name, sha256, rows_in, rows_stored,
       rows_refused, rows_repeated, rows_closing, row_count, summary, created_by, created_at, activated_at, retired_at
FROM rate_version WHERE card_id = %s AND version < %s ORDER BY version DESC LIMIT %s

-- name: same_file
SELECT max(version) AS version FROM rate_version WHERE card_id = %s AND sha256 = %s

-- name: retire
UPDATE rate_version SET status = 'retired', retired_at = %s WHERE card_id = %s AND status = 'active'

-- name: activate
UPDATE rate_version SET status = 'active', activated_at = %s, retired_at = NULL, replaced_version = %s WHERE id = %s

-- name: copy_rows
COPY rate_row (version_id, row_no, prefix, destination, first_price, next_price, first_interval, next_interval,
               connect_fee, attempt_fee, minimum, free_below, surcharge, cap, blocked, valid_from, valid_to)
FROM STDIN

-- name: copy_refusals
COPY rate_refusal (version_id, seq, line, field, value, reason, raw) FROM STDIN

-- name: copy_changes
COPY rate_change (version_id, seq, status, prefix, destination, effective, old_price, new_price, suspicious) FROM STDIN

-- name: rows
SELECT row_no, prefix, destination, blocked, valid_from, valid_to,
       concat_ws(' ', first_price, next_price, first_interval, next_interval, connect_fee, attempt_fee, minimum,
                 free_below, surcharge, cap) AS terms
FROM rate_row WHERE version_id = %s AND row_no > %s AND row_no <= %s ORDER BY row_no

-- name: row_columns
SELECT array_agg(row_no) AS row_no, array_agg(prefix) AS prefix, array_agg(destination) AS destination,
       array_agg(blocked) AS blocked, array_agg(valid_from) AS valid_from, array_agg(valid_to) AS valid_to,
       array_agg(terms) AS terms
FROM (
    SELECT row_no, prefix, destination, blocked, valid_from, valid_to,
           concat_ws(' ', first_price, next_price, first_interval, next_interval, connect_fee, attempt_fee, minimum,
                     free_below, surcharge, cap) AS terms
    FROM rate_row WHERE version_id = %s AND row_no > %s AND row_no <= %s ORDER BY row_no
) AS row

-- name: rows_of_prefixes
SELECT row_no, prefix, destination, blocked, valid_from, valid_to,
       concat_ws(' ', first_price, next_price, first_interval, next_interval, connect_fee, attempt_fee, minimum,
                 free_below, surcharge, cap) AS terms
FROM rate_row WHERE version_id = %s AND prefix COLLATE "C" = ANY (%s::text[]) ORDER BY row_no

-- name: refusals
SELECT seq, line, field, value, reason, raw
FROM rate_refusal WHERE version_id = %s AND seq > %s ORDER BY seq LIMIT %s

-- name: changes
SELECT seq, status, prefix, destination, effective, old_price, new_price, suspicious
FROM rate_change WHERE version_id = %s AND seq > %s AND (%s::text IS NULL OR status = %s) ORDER BY seq LIMIT %s

