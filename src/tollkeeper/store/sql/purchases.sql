-- name: add
INSERT INTO purchase (party_id, request_id, order_id, service, item, called, supplier_id, request, actor,
                      created_at, next_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (party_id, request_id) DO NOTHING
RETURNING id

-- name: purchase
SELECT p.*, c.code AS party, s.code AS supplier FROM purchase p
JOIN party c ON c.id = p.party_id JOIN supplier s ON s.id = p.supplier_id
WHERE p.id = %s

-- name: by_request
SELECT p.*, c.code AS party, s.code AS supplier FROM purchase p
JOIN party c ON c.id = p.party_id JOIN supplier s ON s.id = p.supplier_id
WHERE p.party_id = %s AND p.request_id = %s

-- name: by_order
SELECT p.*, c.code AS party, s.code AS supplier FROM purchase p
JOIN party c ON c.id = p.party_id JOIN supplier s ON s.id = p.supplier_id
WHERE p.order_id = %s

-- name: purchases
SELECT p.*, c.code AS party, s.code AS supplier FROM purchase p
JOIN party c ON c.id = p.party_id JOIN supplier s ON s.id = p.supplier_id
WHERE p.id > %(after)s AND (%(status)s = '' OR p.status = %(status)s)
  AND (%(party)s = '' OR c.code = %(party)s) AND (%(service)s = '' OR p.service = %(service)s)
ORDER BY p.id LIMIT %(limit)s

-- name: own_purchases
-- As a party may see it: not who supplies it.
SELECT p.id, p.party_id, p.request_id, p.order_id, p.service, p.item, p.called, p.status, p.reason, p.charge,
       p.currency, p.created_at, p.ended_at, p.settled_at, c.code AS party
FROM purchase p JOIN party c ON c.id = p.party_id
WHERE p.id > %(after)s AND (%(status)s = '' OR p.status = %(status)s)
  AND (%(party)s = '' OR c.code = %(party)s) AND (%(service)s = '' OR p.service = %(service)s)
ORDER BY p.id LIMIT %(limit)s

-- name: own_by_order
SELECT p.id, p.party_id, p.request_id, p.order_id, p.service, p.item, p.called, p.status, p.reason, p.charge,
       p.currency, p.created_at, p.ended_at, p.settled_at, c.code AS party
FROM purchase p JOIN party c ON c.id = p.party_id WHERE p.order_id = %s

-- name: take_due
-- Whoever takes a row has it until next_at comes again; nobody waits for anybody.
UPDATE purchase SET next_at = %(until)s
WHERE id IN (
    SELECT id FROM purchase WHERE next_at <= %(now)s ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING id

-- name: take
UPDATE purchase SET next_at = %(until)s WHERE id = %(id)s AND next_at <= %(now)s RETURNING id

-- name: held
UPDATE purchase SET status = 'held', hold_until = %s WHERE id = %s AND status = 'new'

-- name: asking
UPDATE purchase SET status = CASE status WHEN 'held' THEN 'ordered' ELSE status END, attempts = attempts + 1,
    ordered_at = coalesce(ordered_at, %(now)s), next_at = %(until)s
WHERE id = %(id)s AND status IN ('held', 'ordered', 'unknown')

-- name: waits
UPDATE purchase SET status = %s, detail = %s, next_at = %s, answer = answer || %s
WHERE id = %s AND status IN ('ordered', 'unknown')

-- name: decided
UPDATE purchase SET status = %s, reason = %s, detail = %s, answer = answer || %s, ended_at = %s, next_at = %s
WHERE id = %s AND status IN ('new', 'held', 'ordered', 'unknown')

-- name: settled
UPDATE purchase SET settled_at = %s, charge = %s, currency = %s, next_at = NULL WHERE id = %s

-- name: purge_decided
-- An eSIM or a number that was bought names its order for ever; an order of a number that waits asks again.
DELETE FROM purchase p
WHERE p.settled_at < %s AND p.status IN ('done', 'refused', 'cancelled') AND p.next_at IS NULL
  AND NOT EXISTS (SELECT FROM esim_profile e WHERE e.purchase_id = p.id)
  AND NOT EXISTS (SELECT FROM did d WHERE d.purchase_id = p.id)
  AND NOT EXISTS (SELECT FROM did_order o WHERE o.status = 'pending' AND p.request_id = 'did-' || o.id)

-- name: hold_ending
SELECT id, order_id FROM purchase
WHERE status IN ('held', 'ordered', 'unknown') AND hold_until <= %s ORDER BY hold_until LIMIT %s

-- name: hold_until
UPDATE purchase SET hold_until = %s WHERE id = %s
