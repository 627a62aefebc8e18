-- name: party
SELECT p.id, p.code, p.name, p.kind, parent.code AS parent, plan.code AS plan, p.status, p.kill_on_suspend,
       p.timezone, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds, p.dial_rules, p.created_at
FROM party p
LEFT JOIN party parent ON parent.id = p.parent_id
LEFT JOIN rate_plan plan ON plan.id = p.plan_id
WHERE p.code = %s

-- name: parties
SELECT p.id, p.code, p.name, p.kind, parent.code AS parent, plan.code AS plan, p.status, p.kill_on_suspend,
       p.timezone, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds, p.dial_rules, p.created_at
FROM party p
LEFT JOIN party parent ON parent.id = p.parent_id
LEFT JOIN rate_plan plan ON plan.id = p.plan_id
WHERE p.code > %s
ORDER BY p.code LIMIT %s

-- name: lock_party
SELECT id FROM party WHERE code = %s FOR NO KEY UPDATE

-- name: parent
SELECT id, kind FROM party WHERE code = %s

-- name: add_party
INSERT INTO party (code, name, kind, parent_id, plan_id, status, kill_on_suspend, timezone, max_sessions, max_cps,
                   max_cost, max_seconds, dial_rules)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: change_party
UPDATE party
SET name = %s, plan_id = %s, status = %s, kill_on_suspend = %s, timezone = %s, max_sessions = %s, max_cps = %s,
    max_cost = %s, max_seconds = %s, dial_rules = %s
WHERE id = %s

-- name: plan_id
SELECT id FROM rate_plan WHERE code = %s

-- name: lock_plan
SELECT id FROM rate_plan WHERE code = %s FOR UPDATE

-- name: plan
SELECT p.id, p.code, p.name, p.created_at, coalesce(cards.codes, '{}') AS card_codes,
       coalesce(cards.kinds, '{}') AS card_kinds
FROM rate_plan p
LEFT JOIN LATERAL (
    SELECT array_agg(c.code ORDER BY pc.position) AS codes, array_agg(pc.kind ORDER BY pc.position) AS kinds
    FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id WHERE pc.plan_id = p.id
) cards ON true
WHERE p.code = %s

-- name: plans
SELECT p.id, p.code, p.name, p.created_at, coalesce(cards.codes, '{}') AS card_codes,
       coalesce(cards.kinds, '{}') AS card_kinds
FROM rate_plan p
LEFT JOIN LATERAL (
    SELECT array_agg(c.code ORDER BY pc.position) AS codes, array_agg(pc.kind ORDER BY pc.position) AS kinds
    FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id WHERE pc.plan_id = p.id
) cards ON true
WHERE p.code > %s
ORDER BY p.code LIMIT %s

-- name: add_plan
INSERT INTO rate_plan (code, name) VALUES (%s, %s) ON CONFLICT (code) DO NOTHING RETURNING id

-- name: rename_plan
UPDATE rate_plan SET name = %s WHERE id = %s

-- name: cards
SELECT id, code, side FROM rate_card WHERE code = ANY (%s::text[])

-- name: clear_plan_cards
DELETE FROM rate_plan_card WHERE plan_id = %s

-- name: add_plan_cards
INSERT INTO rate_plan_card (plan_id, position, card_id, kind)
SELECT %s, position, card_id, kind
FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS given(card_id, kind, position)
