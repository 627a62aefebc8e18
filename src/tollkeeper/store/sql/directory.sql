-- name: parties
-- A card that was never used is nobody yet: of those there may be very many.
SELECT p.id, p.code, p.plan_id, p.status, p.kill_on_suspend, p.max_sessions, p.max_cps, p.max_cost, p.max_seconds,
       p.dial_rules, p.parent_id, p.kind, p.billing, p.rate_change, p.timezone, p.low_balance, p.low_sessions,
       card.expires_at,
       coalesce((SELECT json_object_agg(w.currency, w.id) FROM wallet w WHERE w.party_id = p.id), '{}') AS wallets,
       coalesce((SELECT json_object_agg(w.currency, json_build_array(
                     w.daily_cap::text, w.monthly_cap::text, (cardinality(w.alert_at) > 0)::text))
                 FROM wallet w WHERE w.party_id = p.id
                   AND (w.daily_cap IS NOT NULL OR w.monthly_cap IS NOT NULL OR cardinality(w.alert_at) > 0)),
                '{}') AS caps,
       coalesce((SELECT json_agg(json_build_object('plan', s.plan, 'code', s.code, 'meter', s.meter_id,
                                                   'begins', s.begins_at, 'ends', s.ends_at) ORDER BY s.ends_at, s.id)
                 FROM package_sale s WHERE s.party_id = p.id AND s.status = 'active'), '[]') AS bought
FROM party p LEFT JOIN calling_card card ON card.party_id = p.id
WHERE (p.id = ANY (%s::bigint[]) OR %s) AND (card.id IS NULL OR card.first_used_at IS NOT NULL)

-- name: keys
SELECT id, name, hash, scopes, switch, party_id FROM api_key WHERE revoked_at IS NULL
