-- name: watched
-- What is used of limits and running caps, of wallets that somebody is told about. 'limit' has one
-- period for ever.
SELECT w.id AS wallet_id, w.party_id, p.code AS party, w.currency, w.alert_at, w.stamp, 'limit' AS kind,
       '2000-01-01T00:00:00Z'::timestamptz AS begins_at, w.held - (w.credited - w.debited) AS used,
       w.credit_limit AS bound
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE w.alert_at <> '{}'
UNION ALL
SELECT w.id, w.party_id, p.code, w.currency, w.alert_at, m.stamp, m.code, m.begins_at, m.used + m.held, m.cap
FROM wallet w JOIN party p ON p.id = w.party_id
JOIN meter m ON m.party_id = w.party_id AND m.kind = 'spend' AND m.code IN (w.currency || '/day', w.currency || '/month')
WHERE w.alert_at <> '{}' AND m.begins_at <= %(now)s AND m.ends_at > %(now)s AND m.cap IS NOT NULL

-- name: told
SELECT wallet_id, kind, begins_at, percent FROM wallet_alert
WHERE wallet_id = ANY (%s::bigint[])

-- name: tell
-- One event for one crossing, whichever process is first.
WITH new AS (
    INSERT INTO wallet_alert (wallet_id, kind, begins_at, percent, at)
    VALUES (%(wallet_id)s, %(kind)s, %(begins_at)s, %(percent)s, %(at)s)
    ON CONFLICT DO NOTHING RETURNING wallet_id
)
INSERT INTO outbox (at, kind, detail, payload, next_at)
SELECT %(at)s, 'wallet.alert', %(detail)s, %(payload)s, %(at)s FROM new

-- name: forget
DELETE FROM wallet_alert WHERE wallet_id = %s AND kind = %s AND begins_at = %s AND percent = %s

-- name: purge
DELETE FROM wallet_alert WHERE kind <> 'limit' AND at < %s
