-- name: parties
SELECT p.id, p.code, p.kind, p.parent_id, p.plan_id, p.dial_rules,
       coalesce((SELECT json_object_agg(w.currency, w.id) FROM wallet w WHERE w.party_id = p.id), '{}') AS wallets
FROM party p

-- name: trunks
SELECT id, code, direction, party_id, switch, names, addresses, account, tech_prefix, dial_rules
FROM trunk ORDER BY id

-- name: plan_cards
SELECT pc.plan_id, pc.card_id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding, c.per
FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id
ORDER BY pc.plan_id,
         array_position(ARRAY['customer', 'promotion', 'plan', 'fallback'], pc.kind), pc.position

-- name: live_terms
-- Promotions without a service are for all; other terms without one are for voice.
SELECT DISTINCT pc.plan_id, c.side, c.service
FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id JOIN rate_plan p ON p.id = pc.plan_id
WHERE pc.conditions <> '{}' OR c.cost_card_id IS NOT NULL OR c.key <> 'called' OR c.per <> 60
   OR (c.side = 'sell' AND (
       EXISTS (SELECT FROM jsonb_array_elements(coalesce(p.terms->'promotions', '[]')) AS term
               WHERE coalesce(term->>'service', '') IN ('', c.service))
       OR EXISTS (SELECT FROM jsonb_array_elements(
                      coalesce(p.terms->'surcharges', '[]') || coalesce(p.terms->'tiers', '[]')
                      || coalesce(p.terms->'packages', '[]')) AS term
                  WHERE coalesce(term->>'service', 'voice') = c.service)
   ))

-- name: activations
SELECT card_id, id, version, base_version, replaced_version, status, mode, file_name, sha256, rows_in, rows_stored,
       rows_refused, rows_repeated, rows_closing, row_count, summary, created_by, created_at, activated_at, retired_at
FROM rate_version WHERE card_id = ANY (%s::bigint[]) AND activated_at IS NOT NULL ORDER BY card_id, activated_at, version

-- name: secret
SELECT secret FROM usage_secret

-- name: purged_before
SELECT before FROM usage_purged
