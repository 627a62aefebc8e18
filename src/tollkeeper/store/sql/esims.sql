-- name: add
INSERT INTO esim_profile (iccid, party_id, purchase_id, item, activation_code, data_bytes, package, days,
                          created_at, supplier_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (iccid) DO NOTHING RETURNING id

-- name: esim
SELECT e.id, e.iccid, e.party_id, p.code AS party, o.order_id, e.purchase_id, e.item, e.status, e.activation_code,
       e.data_bytes, e.package, e.days, m.cap - m.used - m.held AS bytes_left, e.created_at, e.activated_at,
       e.expires_at, e.released_at
FROM esim_profile e JOIN party p ON p.id = e.party_id JOIN purchase o ON o.id = e.purchase_id
LEFT JOIN meter m ON m.id = e.meter_id
WHERE e.iccid = %s

-- name: of_purchase
SELECT iccid FROM esim_profile WHERE purchase_id = %s

-- name: esims
SELECT e.id, e.iccid, e.party_id, p.code AS party, o.order_id, e.purchase_id, e.item, e.status, e.activation_code,
       e.data_bytes, e.package, e.days, m.cap - m.used - m.held AS bytes_left, e.created_at, e.activated_at,
       e.expires_at, e.released_at
FROM esim_profile e JOIN party p ON p.id = e.party_id JOIN purchase o ON o.id = e.purchase_id
LEFT JOIN meter m ON m.id = e.meter_id
WHERE e.id > %(after)s AND (%(party)s = '' OR p.code = %(party)s) AND (%(status)s = '' OR e.status = %(status)s)
ORDER BY e.id LIMIT %(limit)s

-- name: lock
SELECT status FROM esim_profile WHERE id = %s FOR NO KEY UPDATE

-- name: activated
UPDATE esim_profile SET status = 'active', activated_at = %s, expires_at = %s, next_at = %s, meter_id = %s
WHERE id = %s

-- name: payer
-- Who pays for the data of a party, and by which plan: an extension spends its customer's.
SELECT a.ancestor_id AS party_id, coalesce(r.code, '') AS plan
FROM party_above a JOIN party p ON p.id = a.ancestor_id LEFT JOIN rate_plan r ON r.id = p.plan_id
WHERE a.party_id = %s AND p.kind <> 'user' ORDER BY a.depth LIMIT 1

-- name: add_volume
INSERT INTO package_sale (party_id, plan, code, request, bought_at, status, renew, units, period, unit, price,
                          meter_id, begins_at, ends_at, actor)
VALUES (%(party)s, %(plan)s, %(code)s, %(request)s, %(begins)s, 'active', false, %(units)s, 'day', 'byte', 0,
        %(meter)s, %(begins)s, %(ends)s, %(actor)s)

-- name: end_volume
UPDATE package_sale s SET status = 'ended' FROM esim_profile e
WHERE e.id = %s AND s.meter_id = e.meter_id AND s.status = 'active'
RETURNING s.party_id

-- name: due
SELECT iccid FROM esim_profile WHERE next_at <= %s ORDER BY next_at LIMIT %s

-- name: expired
UPDATE esim_profile SET status = 'expired', next_at = %s WHERE id = %s AND status = 'active'

-- name: released
UPDATE esim_profile SET status = 'released', released_at = %s, next_at = NULL WHERE id = %s AND status <> 'released'

-- name: later
UPDATE esim_profile SET next_at = %s WHERE id = %s

-- name: notify
SELECT pg_notify('tollkeeper', 'party:' || %s::bigint)
