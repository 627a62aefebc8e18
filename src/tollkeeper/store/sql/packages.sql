-- name: add
INSERT INTO package_sale (party_id, plan, code, request, bought_at, renew, units, rollover, period, unit, price,
                          currency, begins_at, ends_at, actor)
VALUES (%(party_id)s, %(plan)s, %(code)s, %(request)s, %(bought_at)s, %(renew)s, %(units)s, %(rollover)s, %(period)s,
        %(unit)s, %(price)s, %(currency)s, %(begins_at)s, %(ends_at)s, %(actor)s)
ON CONFLICT (request) DO NOTHING RETURNING id

-- name: by_request
SELECT s.*, p.code AS party FROM package_sale s JOIN party p ON p.id = s.party_id WHERE s.request = %s

-- name: by_id
SELECT s.*, p.code AS party FROM package_sale s JOIN party p ON p.id = s.party_id WHERE s.id = %s

-- name: lock
SELECT s.*, p.code AS party FROM package_sale s JOIN party p ON p.id = s.party_id WHERE s.id = %s FOR UPDATE OF s

-- name: of_party
SELECT s.*, p.code AS party, m.used, m.held, m.cap
FROM package_sale s JOIN party p ON p.id = s.party_id LEFT JOIN meter m ON m.id = s.meter_id
WHERE p.code = %(party)s AND (s.status IN ('pending', 'active') OR %(ended)s)
ORDER BY s.id

-- name: activate
UPDATE package_sale SET status = 'active', meter_id = %(meter_id)s WHERE id = %(id)s

-- name: end_sale
UPDATE package_sale SET status = %(status)s, reason = %(reason)s WHERE id = %(id)s

-- name: next_term
UPDATE package_sale SET status = 'pending', term = %(term)s, begins_at = %(begins_at)s, ends_at = %(ends_at)s,
       units = %(units)s, rollover = %(rollover)s, price = %(price)s, currency = %(currency)s
WHERE id = %(id)s

-- name: set_renew
UPDATE package_sale SET renew = %(renew)s WHERE id = %(id)s

-- name: left
SELECT greatest(cap - used - held, 0) AS unused FROM meter WHERE id = %s

-- name: due
-- Whose term is over, and whose price may not have been charged because somebody fell over on the way.
SELECT id FROM package_sale
WHERE (status = 'active' AND ends_at <= %(now)s) OR (status = 'pending' AND begins_at <= %(stuck)s)
ORDER BY ends_at LIMIT %(limit)s

-- name: notify
SELECT pg_notify('tollkeeper', 'party:' || %s::bigint)
