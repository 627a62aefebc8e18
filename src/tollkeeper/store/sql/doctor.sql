-- name: server
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS version_number,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_connections')::integer AS max_connections,
       (SELECT datcollate FROM pg_database WHERE datname = current_database()) AS locale,
       pg_is_in_recovery() AS in_recovery,
       has_database_privilege(current_database(), 'CREATE') AS may_create

-- name: clock
SELECT clock_timestamp() AS at

-- name: partitions
SELECT parent.relname AS parent, max(to_date(right(child.relname, 8), 'YYYYMMDD')) AS last_day
FROM pg_inherits i
JOIN pg_class parent ON parent.oid = i.inhparent
JOIN pg_class child ON child.oid = i.inhrelid
WHERE parent.relname IN ('entry', 'closed_session', 'session_message') AND child.relname ~ '_[0-9]{8}$'
GROUP BY parent.relname ORDER BY parent.relname

-- name: unplanned_cards
SELECT c.code FROM rate_card c
WHERE c.side = 'sell' AND c.active_version IS NOT NULL
  AND NOT EXISTS (SELECT FROM rate_plan_card p WHERE p.card_id = c.id)
ORDER BY c.code LIMIT 11

-- name: inactive_cards
SELECT c.code FROM rate_card c
WHERE c.active_version IS NULL AND EXISTS (SELECT FROM rate_plan_card p WHERE p.card_id = c.id)
ORDER BY c.code LIMIT 11

-- name: unplanned_parties
SELECT code FROM party WHERE kind IN ('customer', 'reseller') AND status = 'active' AND plan_id IS NULL
ORDER BY code LIMIT 11

-- name: parties_without_wallet
SELECT p.code FROM party p
WHERE p.kind IN ('customer', 'reseller') AND p.status = 'active'
  AND NOT EXISTS (SELECT FROM wallet w WHERE w.party_id = p.id)
ORDER BY p.code LIMIT 11

-- name: parked_wallets
SELECT p.code || '/' || w.currency AS code FROM wallet w JOIN party p ON p.id = w.party_id
WHERE w.parked ORDER BY 1 LIMIT 11

-- name: counts
SELECT (SELECT count(*) FROM api_key WHERE revoked_at IS NULL AND scopes && '{charge,manage}') AS charging_keys,
       (SELECT count(*) FROM party) AS parties,
       (SELECT count(*) FROM live_session) AS live_sessions,
       (SELECT count(*) FROM live_session WHERE expires_at < now() - interval '10 minutes') AS overdue_sessions,
       (SELECT count(*) FROM outbox WHERE done_at IS NULL AND at < now() - interval '10 minutes') AS late_messages
