-- name: plan_rows
SELECT id, code, terms FROM rate_plan

-- name: card_rows
-- What is sold by; by the buy cards of its plan a party charges us, from records.
SELECT pc.plan_id, pc.card_id, c.code, c.service, pc.kind, c.key, c.per, c.currency, pc.conditions, c.cost_card_id,
       c.markup_percent, c.markup, c.floor_price, c.ceiling_price
FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id AND c.side = 'sell'
WHERE %s::bigint IS NULL OR pc.plan_id = %s
ORDER BY pc.plan_id,
         array_position(ARRAY['customer', 'promotion', 'plan', 'fallback'], pc.kind), pc.position

-- name: plan_row
SELECT id, code, terms FROM rate_plan WHERE code = %s

-- name: conditions
SELECT plan_id, conditions FROM rate_plan_card WHERE conditions <> '{}'

-- name: set_terms
UPDATE rate_plan SET terms = %s WHERE id = %s

-- name: party_ids
SELECT code, id FROM party WHERE code = ANY (%s::text[])

-- name: wallet_currencies
SELECT currency FROM wallet WHERE party_id = %s

-- name: zones
SELECT z.id, z.code, z.name, z.prefixes, z.owner_id, p.code AS owner
FROM zone z LEFT JOIN party p ON p.id = z.owner_id
WHERE z.code > %s ORDER BY z.code LIMIT %s

-- name: zone
SELECT z.id, z.code, z.name, z.prefixes, z.owner_id, p.code AS owner
FROM zone z LEFT JOIN party p ON p.id = z.owner_id
WHERE z.code = %s

-- name: lock_zone
SELECT z.id, z.code, z.name, z.prefixes, z.owner_id, p.code AS owner
FROM zone z LEFT JOIN party p ON p.id = z.owner_id
WHERE z.code = %s FOR UPDATE OF z

-- name: add_zone
INSERT INTO zone (code, name, owner_id, prefixes) VALUES (%s, %s, %s, %s) ON CONFLICT (code) DO NOTHING RETURNING id

-- name: set_zone
UPDATE zone SET name = %s, prefixes = %s WHERE id = %s

-- name: delete_zone
DELETE FROM zone WHERE id = %s

-- name: profiles
SELECT t.id, t.code, t.name, t.timezone, t.windows, t.owner_id, p.code AS owner
FROM time_profile t LEFT JOIN party p ON p.id = t.owner_id
WHERE t.code > %s ORDER BY t.code LIMIT %s

-- name: profile
SELECT t.id, t.code, t.name, t.timezone, t.windows, t.owner_id, p.code AS owner
FROM time_profile t LEFT JOIN party p ON p.id = t.owner_id
WHERE t.code = %s

-- name: lock_profile
SELECT t.id, t.code, t.name, t.timezone, t.windows, t.owner_id, p.code AS owner
FROM time_profile t LEFT JOIN party p ON p.id = t.owner_id
WHERE t.code = %s FOR UPDATE OF t

-- name: add_profile
INSERT INTO time_profile (code, name, owner_id, timezone, windows) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING RETURNING id

-- name: set_profile
UPDATE time_profile SET name = %s, timezone = %s, windows = %s WHERE id = %s

-- name: delete_profile
DELETE FROM time_profile WHERE id = %s
