-- name: own_code
SELECT code FROM party WHERE id = %s

-- name: subtree
SELECT party_id FROM party_above WHERE ancestor_id = %s ORDER BY party_id

-- name: seen_parties
SELECT id FROM party WHERE id = ANY (%s::bigint[])

-- name: seen_cards
SELECT id FROM rate_card WHERE id = ANY (%s::bigint[])

-- name: seen_actors
SELECT actor
FROM (SELECT 'key ' || id || ' (' || name || ')' AS actor FROM api_key) AS keys
WHERE actor = ANY (%s::text[])
