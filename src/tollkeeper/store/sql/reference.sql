-- name: parties
SELECT p.id, p.code, p.kind, p.parent_id, p.plan_id, p.dial_rules,
       coalesce((SELECT json_object_agg(w.currency, w.id) FROM wallet w WHERE w.party_id = p.id), '{}') AS wallets
FROM party p

-- name: trunks
SELECT id, code, direction, party_id, switch, names, addresses, account, tech_prefix, dial_rules
FROM trunk ORDER BY id

-- name: plan_cards
SELECT pc.plan_id, pc.card_id, c.code, c.name, c.side, c.service, c.currency, c.decimals, c.rounding
FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id
ORDER BY pc.plan_id,
         array_position(ARRAY['customer', 'promotion', 'plan', 'fallback'], pc.kind), pc.position

-- name: activations
SELECT card_id, id, version, base_version, replaced_version, status, mode, file_name, sha256, rows_in, rows_stored,
       rows_refused, rows_repeated, rows_closing, row_count, summary, created_by, created_at, activated_at, retired_at
FROM rate_version WHERE card_id = ANY (%s::bigint[]) AND activated_at IS NOT NULL ORDER BY card_id, activated_at, version

-- name: secret
SELECT secret FROM usage_secret

-- name: purged_before
SELECT before FROM usage_purged
