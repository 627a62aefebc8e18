-- name: add_rule
INSERT INTO commission_rule (party_id, service, basis, percent, currency, valid_from, valid_to)
VALUES (%s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: rule
SELECT r.id, p.code AS party, r.party_id, r.service, r.basis, r.percent, r.currency, r.valid_from, r.valid_to
FROM commission_rule r JOIN party p ON p.id = r.party_id WHERE r.id = %s

-- name: lock_rule
SELECT id FROM commission_rule WHERE id = %s FOR UPDATE

-- name: rules
SELECT r.id, p.code AS party, r.party_id, r.service, r.basis, r.percent, r.currency, r.valid_from, r.valid_to
FROM commission_rule r JOIN party p ON p.id = r.party_id
WHERE r.id > %(after)s AND (%(party)s::bigint IS NULL OR r.party_id = %(party)s)
ORDER BY r.id LIMIT %(limit)s

-- name: overlapping_rule
SELECT id FROM commission_rule
WHERE party_id = %s AND service = %s AND valid_from < coalesce(%s::date, 'infinity')
  AND coalesce(valid_to, 'infinity') > %s
ORDER BY id LIMIT 1

-- name: end_rule
UPDATE commission_rule SET valid_to = %s WHERE id = %s

-- name: last_run_end
SELECT max(period_end) AS last FROM commission_run WHERE rule_id = %s

-- name: charged
-- What wallets paid for services, less what they were given back: those of the party itself, and of
-- whoever stood directly below it when it was charged.
WITH place AS (
    SELECT m.party_id, m.parent_id,
           CASE WHEN row_number() OVER moves = 1 THEN '-infinity'::timestamptz ELSE m.at END AS since,
           coalesce(lead(m.at) OVER moves, 'infinity') AS until
    FROM party_move m WINDOW moves AS (PARTITION BY m.party_id ORDER BY m.at, m.id)
    UNION ALL
    SELECT p.id, p.parent_id, '-infinity', 'infinity'
    FROM party p WHERE NOT EXISTS (SELECT FROM party_move m WHERE m.party_id = p.id)
), purse AS (
    SELECT w.id, false AS own, place.since, place.until
    FROM place JOIN wallet w ON w.party_id = place.party_id WHERE place.parent_id = %(party)s
    UNION ALL
    SELECT w.id, true, '-infinity', 'infinity' FROM wallet w WHERE w.party_id = %(party)s
)
SELECT a.name AS service, e.currency, purse.own,
       sum(CASE WHEN e.debit_account = e.wallet_id THEN e.amount ELSE -e.amount END) AS amount
FROM purse
JOIN entry e ON e.wallet_id = purse.id AND e.at >= purse.since AND e.at < purse.until
JOIN account a ON a.id = CASE WHEN e.debit_account = e.wallet_id THEN e.credit_account ELSE e.debit_account END
WHERE a.kind = 'revenue' AND e.day >= %(begin)s AND e.day < %(end)s
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3

-- name: services_of_rules
-- Services that have a rule of their own on some day of the period.
SELECT DISTINCT service FROM commission_rule
WHERE party_id = %s AND service <> '' AND valid_from < %s AND coalesce(valid_to, 'infinity') > %s

-- name: overlapping_run
SELECT period_begin, period_end FROM commission_run
WHERE rule_id = %s AND period_begin < %s AND period_end > %s AND NOT (period_begin = %s AND period_end = %s)
ORDER BY period_begin LIMIT 1

-- name: run_of
SELECT id FROM commission_run WHERE rule_id = %s AND period_begin = %s AND period_end = %s

-- name: add_run
INSERT INTO commission_run (rule_id, party_id, period_begin, period_end, service, basis, percent, currency, turnover,
                            own, commission, lines, entry_id, actor, at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: run
SELECT c.id, c.rule_id, p.code AS party, c.period_begin, c.period_end, c.service, c.basis, c.percent, c.currency,
       c.turnover, c.own, c.commission, c.lines, c.entry_id, c.actor, c.at
FROM commission_run c JOIN party p ON p.id = c.party_id WHERE c.id = %s

-- name: runs
SELECT c.id, c.rule_id, p.code AS party, c.period_begin, c.period_end, c.service, c.basis, c.percent, c.currency,
       c.turnover, c.own, c.commission, c.lines, c.entry_id, c.actor, c.at
FROM commission_run c JOIN party p ON p.id = c.party_id
WHERE c.id > %(after)s AND (%(party)s::bigint IS NULL OR c.party_id = %(party)s)
ORDER BY c.id LIMIT %(limit)s
