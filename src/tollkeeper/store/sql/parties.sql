-- name: party
SELECT p.id, p.code, p.name, p.kind, parent.code AS parent, plan.code AS plan, p.status, p.kill_on_suspend,
       p.timezone, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds, p.dial_rules, p.created_at, p.overcommit,
       p.billing, p.low_balance, p.low_sessions, p.rate_change
FROM party p
LEFT JOIN party parent ON parent.id = p.parent_id
LEFT JOIN rate_plan plan ON plan.id = p.plan_id
WHERE p.code = %s

-- name: parties
SELECT p.id, p.code, p.name, p.kind, parent.code AS parent, plan.code AS plan, p.status, p.kill_on_suspend,
       p.timezone, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds, p.dial_rules, p.created_at, p.overcommit,
       p.billing, p.low_balance, p.low_sessions, p.rate_change
FROM party p
LEFT JOIN party parent ON parent.id = p.parent_id
LEFT JOIN rate_plan plan ON plan.id = p.plan_id
WHERE p.code > %(after)s
  AND (%(parent)s::bigint IS NULL OR p.parent_id = %(parent)s)
  AND (%(below)s::bigint IS NULL OR p.id IN (
      -- Not by the closure: who works for a party sees only its own part of that.
      WITH RECURSIVE tree AS (
          SELECT %(below)s::bigint AS id
          UNION ALL
          SELECT child.id FROM tree JOIN party child ON child.parent_id = tree.id
      )
      SELECT id FROM tree
  ))
ORDER BY p.code LIMIT %(limit)s

-- name: lock_party
SELECT id FROM party WHERE code = %s FOR NO KEY UPDATE

-- name: parent
SELECT id, kind FROM party WHERE code = %s

-- name: add_party
INSERT INTO party (code, name, kind, parent_id, plan_id, status, kill_on_suspend, timezone, max_sessions, max_cps,
                   max_cost, max_seconds, dial_rules, low_balance, low_sessions, rate_change)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: change_party
UPDATE party
SET name = %s, plan_id = CASE WHEN %s THEN %s ELSE plan_id END, status = %s, kill_on_suspend = %s, timezone = %s, max_sessions = %s, max_cps = %s,
    max_cost = %s, max_seconds = %s, dial_rules = %s, low_balance = %s, low_sessions = %s,
    rate_change = %s
WHERE id = %s

-- name: set_overcommit
UPDATE party SET overcommit = %s WHERE id = %s

-- name: move
UPDATE party SET parent_id = %s WHERE id = %s

-- name: stands_below
-- Whether one party stands below another, or is it.
WITH RECURSIVE line AS (
    SELECT id, parent_id FROM party WHERE id = %s
    UNION ALL
    SELECT up.id, up.parent_id FROM line JOIN party up ON up.id = line.parent_id
)
SELECT EXISTS (SELECT FROM line WHERE id = %s) AS below

-- name: foreign_plan
-- A party of a subtree that is sold by the plan of somebody who does not stand above it any more.
SELECT p.code AS party, plan.code AS plan, owner.code AS owner
FROM party_above below
JOIN party p ON p.id = below.party_id
JOIN rate_plan plan ON plan.id = p.plan_id
JOIN party owner ON owner.id = plan.owner_id
WHERE below.ancestor_id = %s
  AND NOT EXISTS (SELECT FROM party_above up WHERE up.party_id = p.id AND up.ancestor_id = plan.owner_id)
ORDER BY below.depth, p.code LIMIT 1

-- name: add_move
INSERT INTO party_move (party_id, parent_id, actor, reason) VALUES (%s, %s, %s, %s)

-- name: moves
SELECT m.id, parent.code AS parent, m.at, m.actor, m.reason
FROM party_move m LEFT JOIN party parent ON parent.id = m.parent_id
WHERE m.party_id = %s AND m.id > %s
ORDER BY m.id LIMIT %s

-- name: plan_id
SELECT id, owner_id FROM rate_plan WHERE code = %s

-- name: lock_plan
SELECT id FROM rate_plan WHERE code = %s FOR UPDATE

-- name: plan
SELECT p.id, p.code, p.name, p.created_at, coalesce(cards.codes, '{}') AS card_codes,
       coalesce(cards.kinds, '{}') AS card_kinds, coalesce(cards.conditions, '{}') AS card_conditions
FROM rate_plan p
LEFT JOIN LATERAL (
    SELECT array_agg(c.code ORDER BY pc.position) AS codes, array_agg(pc.kind ORDER BY pc.position) AS kinds,
           array_agg(pc.conditions ORDER BY pc.position) AS conditions
    FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id WHERE pc.plan_id = p.id
) cards ON true
WHERE p.code = %s

-- name: plans
SELECT p.id, p.code, p.name, p.created_at, coalesce(cards.codes, '{}') AS card_codes,
       coalesce(cards.kinds, '{}') AS card_kinds, coalesce(cards.conditions, '{}') AS card_conditions
FROM rate_plan p
LEFT JOIN LATERAL (
    SELECT array_agg(c.code ORDER BY pc.position) AS codes, array_agg(pc.kind ORDER BY pc.position) AS kinds,
           array_agg(pc.conditions ORDER BY pc.position) AS conditions
    FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id WHERE pc.plan_id = p.id
) cards ON true
WHERE p.code > %s
ORDER BY p.code LIMIT %s

-- name: add_plan
INSERT INTO rate_plan (code, name, owner_id) VALUES (%s, %s, %s) ON CONFLICT (code) DO NOTHING RETURNING id

-- name: rename_plan
UPDATE rate_plan SET name = %s WHERE id = %s

-- name: cards
SELECT id, code, side FROM rate_card WHERE code = ANY (%s::text[]) AND (%s::bigint IS NULL OR owner_id = %s)

-- name: clear_plan_cards
DELETE FROM rate_plan_card WHERE plan_id = %s

-- name: add_plan_cards
INSERT INTO rate_plan_card (plan_id, position, card_id, kind, conditions)
SELECT %s, position, card_id, kind, conditions
FROM unnest(%s::bigint[], %s::text[], %s::jsonb[]) WITH ORDINALITY AS given(card_id, kind, conditions, position)

-- name: bounding_parent
SELECT up.id, up.code FROM party p JOIN party up ON up.id = p.parent_id
WHERE p.id = %s AND up.overcommit IS NOT NULL

-- name: wait_for_turn
SELECT pg_advisory_xact_lock(7203, hashint8(%s::bigint))

-- name: given_below
SELECT up.overcommit AS share,
       coalesce((
           SELECT own.credited - own.debited + own.credit_limit - own.held
           FROM wallet own WHERE own.party_id = up.id AND own.currency = %(currency)s
       ), 0) AS own,
       coalesce((
           SELECT sum(greatest(w.credited - w.debited + w.credit_limit - w.held, 0))
           FROM party child JOIN wallet w ON w.party_id = child.id
           WHERE child.parent_id = up.id AND w.currency = %(currency)s
       ), 0) AS given
FROM party up WHERE up.id = %(party)s
