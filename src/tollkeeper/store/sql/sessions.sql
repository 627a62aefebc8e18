-- name: live
SELECT key, id::text AS id, body::text AS body, expires_at, version FROM live_session
WHERE (%(party)s::bigint IS NULL OR party_id = %(party)s) AND key > %(after)s
ORDER BY key LIMIT %(limit)s

-- name: by_key_live
SELECT body::text AS body FROM live_session WHERE key = %s

-- name: by_key_closed
SELECT body::text AS body FROM closed_session WHERE key = %s ORDER BY opened_day DESC LIMIT 1

-- name: by_id_live
SELECT body::text AS body FROM live_session WHERE id = %s::uuid

-- name: by_id_closed
SELECT body::text AS body FROM closed_session WHERE id = %s::uuid

-- name: messages
SELECT version, message_id, at, request::text AS request, reply::text AS reply FROM session_message
WHERE day = %s AND session_id = %s::uuid ORDER BY version

-- name: entries
SELECT e.id, e.at, e.code, e.amount, e.currency, e.wallet_id, e.wallet_version, e.balance_after, e.leg,
       d.kind || ':' || d.name AS debit, c.kind || ':' || c.name AS credit
FROM entry e JOIN account d ON d.id = e.debit_account JOIN account c ON c.id = e.credit_account
WHERE e.session_id = %s::uuid ORDER BY e.id

-- name: due_to_expire
SELECT key FROM live_session WHERE expires_at <= %s ORDER BY expires_at LIMIT %s

-- name: parties_to_kill
-- Everybody at or below whoever is stopped, while that subtree has any session. Its wallets tell; a
-- user has none and spends the money of those above it.
SELECT DISTINCT below.party_id AS id
FROM party p JOIN party_above below ON below.ancestor_id = p.id
WHERE (p.status = 'frozen' OR (p.status = 'suspended' AND p.kill_on_suspend))
  AND EXISTS (
      SELECT FROM party_above a
      JOIN wallet w ON w.party_id = CASE p.kind WHEN 'user' THEN a.ancestor_id ELSE a.party_id END
      WHERE CASE p.kind WHEN 'user' THEN a.party_id ELSE a.ancestor_id END = p.id AND w.live > 0
  )

-- name: to_kill
SELECT key FROM live_session WHERE party_id = ANY (%s::bigint[]) AND body->>'kill' IS NULL LIMIT %s

-- name: party_codes
SELECT id, code FROM party WHERE id = ANY (%s::bigint[])

-- name: keys_of_id
WITH name AS (
    SELECT DISTINCT switch || '/' || %(id)s AS key FROM api_key
)
SELECT key FROM name WHERE EXISTS (SELECT FROM live_session s WHERE s.key = name.key)
    OR EXISTS (SELECT FROM closed_session s WHERE s.key = name.key)
ORDER BY key
