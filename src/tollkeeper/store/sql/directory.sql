-- name: parties
SELECT p.id, p.code, p.plan_id, p.status, p.kill_on_suspend, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds,
       p.dial_rules,
       coalesce((SELECT json_object_agg(w.currency, w.id) FROM wallet w WHERE w.party_id = p.id), '{}') AS wallets
FROM party p WHERE p.id = ANY (%s::bigint[]) OR %s

-- name: plan_cards
-- What a call is sold by; by the buy cards of its plan a party charges us, from records.
SELECT pc.plan_id, pc.card_id, c.service
FROM rate_plan_card pc JOIN rate_card c ON c.id = pc.card_id AND c.side = 'sell'
ORDER BY pc.plan_id,
         array_position(ARRAY['customer', 'promotion', 'plan', 'fallback'], pc.kind), pc.position

-- name: keys
SELECT id, name, hash, scopes, switch FROM api_key WHERE revoked_at IS NULL
