-- name: add
INSERT INTO trunk (code, direction, party_id, switch, names, addresses, account, tech_prefix, dial_rules)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: change
UPDATE trunk SET party_id = %s, switch = %s, names = %s, addresses = %s, account = %s, tech_prefix = %s, dial_rules = %s
WHERE code = %s

-- name: one
SELECT t.id, t.code, t.direction, p.code AS party, t.switch, t.names, t.addresses, t.account, t.tech_prefix, t.dial_rules
FROM trunk t JOIN party p ON p.id = t.party_id WHERE t.code = %s

-- name: page
SELECT t.id, t.code, t.direction, p.code AS party, t.switch, t.names, t.addresses, t.account, t.tech_prefix, t.dial_rules
FROM trunk t JOIN party p ON p.id = t.party_id WHERE t.code > %s ORDER BY t.code LIMIT %s

-- name: delete
DELETE FROM trunk WHERE code = %s
