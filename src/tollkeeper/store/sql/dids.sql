-- name: put
-- A number of our own: new, or given back to its supplier before; of one that is there only what is said of it.
INSERT INTO did (number, country, kind, item, destination, quarantine_days, grace_days, created_at)
VALUES (%(number)s, %(country)s, %(kind)s, %(item)s, %(destination)s, %(quarantine_days)s, %(grace_days)s, %(now)s)
ON CONFLICT (number) DO UPDATE SET
    country = excluded.country, kind = excluded.kind, item = excluded.item,
    quarantine_days = excluded.quarantine_days, grace_days = excluded.grace_days,
    supplier_id = CASE did.status WHEN 'released' THEN NULL ELSE did.supplier_id END,
    purchase_id = CASE did.status WHEN 'released' THEN NULL ELSE did.purchase_id END,
    status = CASE did.status WHEN 'released' THEN 'available' ELSE did.status END
RETURNING (xmax = 0) AS added

-- name: reserve_new
-- A number that a supplier is to deliver; nobody else can order it meanwhile.
INSERT INTO did (number, item, status, party_id, supplier_id, created_at)
VALUES (%(number)s, %(item)s, 'ordered', %(party_id)s, %(supplier_id)s, %(now)s)
ON CONFLICT (number) DO UPDATE SET item = excluded.item, status = 'ordered', party_id = excluded.party_id,
    supplier_id = excluded.supplier_id, purchase_id = NULL, destination = '', assigned_at = NULL
WHERE did.status = 'released'
RETURNING id

-- name: reserve
UPDATE did SET status = 'ordered', party_id = %(party_id)s, destination = ''
WHERE number = %(number)s
  AND (status = 'available' OR (status = 'quarantined' AND supplier_id IS NULL AND quarantine_until <= %(now)s))
RETURNING id

-- name: did
SELECT d.*, coalesce(p.code, '') AS party, coalesce(s.code, '') AS supplier
FROM did d LEFT JOIN party p ON p.id = d.party_id LEFT JOIN supplier s ON s.id = d.supplier_id
WHERE d.number = %s

-- name: own_did
SELECT d.id, d.number, d.country, d.kind, d.item, d.status, d.party_id, d.destination, d.created_at, d.assigned_at,
       coalesce(p.code, '') AS party
FROM did d LEFT JOIN party p ON p.id = d.party_id
WHERE d.number = %s

-- name: dids
SELECT d.*, coalesce(p.code, '') AS party, coalesce(s.code, '') AS supplier
FROM did d LEFT JOIN party p ON p.id = d.party_id LEFT JOIN supplier s ON s.id = d.supplier_id
WHERE d.number > %(after)s AND (%(status)s = '' OR d.status = %(status)s)
  AND (%(country)s = '' OR d.country = %(country)s) AND (%(kind)s = '' OR d.kind = %(kind)s)
  AND (%(party)s = '' OR p.code = %(party)s) AND d.number LIKE %(like)s
ORDER BY d.number LIMIT %(limit)s

-- name: own_dids
SELECT d.id, d.number, d.country, d.kind, d.item, d.status, d.party_id, d.destination, d.created_at, d.assigned_at,
       coalesce(p.code, '') AS party
FROM did d LEFT JOIN party p ON p.id = d.party_id
WHERE d.number > %(after)s AND (%(status)s = '' OR d.status = %(status)s)
  AND (%(country)s = '' OR d.country = %(country)s) AND (%(kind)s = '' OR d.kind = %(kind)s)
  AND (%(party)s = '' OR p.code = %(party)s) AND d.number LIKE %(like)s
ORDER BY d.number LIMIT %(limit)s

-- name: item
SELECT number, item FROM did WHERE id = %s

-- name: set_destination
UPDATE did SET destination = %s WHERE id = %s

-- name: assign
UPDATE did SET status = 'assigned', assigned_at = %(now)s, purchase_id = %(purchase_id)s, released_at = NULL,
       quarantine_until = NULL,
       country = CASE WHEN %(country)s = '' THEN country ELSE %(country)s END
WHERE id = %(id)s AND status = 'ordered' RETURNING grace_days

-- name: give_up
-- An order that came to nothing: ours again, or never was.
UPDATE did SET status = CASE WHEN supplier_id IS NULL THEN 'available' ELSE 'released' END, party_id = NULL
WHERE id = %(id)s AND status = 'ordered'

-- name: quarantine
-- A supplier's number is given back to it, which does not wait. Where calls went is nobody else's business.
UPDATE did SET status = 'quarantined', party_id = NULL, destination = '', released_at = %(now)s, quarantine_until = %(now)s +
       CASE WHEN supplier_id IS NULL THEN make_interval(days => quarantine_days) ELSE '0' END
WHERE id = %(id)s AND status = 'assigned'

-- name: out_of_quarantine
SELECT id, number, supplier_id, purchase_id FROM did
WHERE status = 'quarantined' AND quarantine_until <= %(now)s ORDER BY quarantine_until LIMIT %(limit)s

-- name: end_quarantine
UPDATE did SET status = %(status)s, quarantine_until = NULL WHERE id = %(id)s AND status = 'quarantined'

-- name: later
UPDATE did SET quarantine_until = %s WHERE id = %s AND status = 'quarantined'

-- name: add_event
INSERT INTO did_event (did_id, at, event, party_id, detail, actor) VALUES (%s, %s, %s, %s, %s, %s)

-- name: events
SELECT e.at, e.event, coalesce(p.code, '') AS party, e.detail
FROM did_event e JOIN did d ON d.id = e.did_id LEFT JOIN party p ON p.id = e.party_id
WHERE d.number = %s ORDER BY e.id

-- name: add_order
INSERT INTO did_order (did_id, party_id, request_id, fee_id, supplier, actor, created_at)
VALUES (%(did_id)s, %(party_id)s, %(request_id)s, %(fee_id)s, %(supplier)s, %(actor)s, %(now)s)
ON CONFLICT (party_id, request_id) DO NOTHING RETURNING id

-- name: order
SELECT o.*, d.number, d.item, p.code AS party
FROM did_order o JOIN did d ON d.id = o.did_id JOIN party p ON p.id = o.party_id WHERE o.id = %s

-- name: lock_order
SELECT o.*, d.number, d.item, p.code AS party
FROM did_order o JOIN did d ON d.id = o.did_id JOIN party p ON p.id = o.party_id WHERE o.id = %s
FOR NO KEY UPDATE OF o

-- name: by_request
SELECT o.*, d.number, d.item, p.code AS party
FROM did_order o JOIN did d ON d.id = o.did_id JOIN party p ON p.id = o.party_id
WHERE o.party_id = %s AND o.request_id = %s

-- name: pending
SELECT id FROM did_order WHERE status = 'pending' AND created_at <= %s AND id > %s ORDER BY id LIMIT %s

-- name: end_order
UPDATE did_order SET status = %(status)s, reason = %(reason)s, charge = %(charge)s, currency = %(currency)s,
       ended_at = %(now)s
WHERE id = %(id)s

-- name: fee_of
SELECT id FROM recurring_fee WHERE did_id = %s AND status = 'active' ORDER BY id DESC LIMIT 1

-- name: holder
SELECT party_id FROM did WHERE id = %s FOR NO KEY UPDATE
