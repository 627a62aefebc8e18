-- name: begin
INSERT INTO balance_push (peer_id, account, mark, amount, money_before, at)
SELECT %(peer)s, %(account)s, %(mark)s, %(amount)s, %(money_before)s, %(at)s
WHERE NOT EXISTS (
    SELECT FROM balance_push
    WHERE peer_id = %(peer)s AND account = %(account)s AND (at > %(read_at)s OR ended_at > %(read_at)s)
)
ON CONFLICT DO NOTHING
RETURNING id

-- name: open
SELECT id, account, mark, amount, attempts, at FROM balance_push WHERE peer_id = %s AND status = 'open' ORDER BY id

-- name: ended
UPDATE balance_push SET status = %s, ended_at = %s, detail = %s WHERE id = %s AND status = 'open'

-- name: tried
UPDATE balance_push SET attempts = attempts + 1, detail = %s WHERE id = %s AND status = 'open'

-- name: purge
DELETE FROM balance_push WHERE status <> 'open' AND at < %s

-- name: spendable
SELECT p.code AS party, w.parked OR p.status = 'suspended' AS barred,
       w.credited - w.debited AS balance, w.credited - w.debited + w.credit_limit - w.held AS available
FROM wallet w JOIN party p ON p.id = w.party_id
WHERE p.code = ANY (%s::text[]) AND w.currency = %s
