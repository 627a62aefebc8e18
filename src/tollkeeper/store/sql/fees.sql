-- name: add
INSERT INTO recurring_fee (name, party_id, service, called, amount, currency, period, begins_on, ends_on, prorate,
                           grace_days, paid_until, next_at, did_id, request, actor, created_at)
VALUES (%(name)s, %(party_id)s, %(service)s, %(called)s, %(amount)s, %(currency)s, %(period)s, %(begins_on)s,
        %(ends_on)s, %(prorate)s, %(grace_days)s, %(begins_on)s, %(next_at)s, %(did_id)s, %(request)s, %(actor)s,
        %(created_at)s)
ON CONFLICT (request) DO NOTHING RETURNING id

-- name: fee
SELECT f.*, p.code AS party, p.timezone FROM recurring_fee f JOIN party p ON p.id = f.party_id WHERE f.id = %s

-- name: by_request
SELECT f.*, p.code AS party, p.timezone FROM recurring_fee f JOIN party p ON p.id = f.party_id WHERE f.request = %s

-- name: lock
SELECT f.*, p.code AS party, p.timezone FROM recurring_fee f JOIN party p ON p.id = f.party_id WHERE f.id = %s
FOR NO KEY UPDATE OF f

-- name: fees
SELECT f.*, p.code AS party, p.timezone FROM recurring_fee f JOIN party p ON p.id = f.party_id
WHERE f.id > %(after)s AND (%(party)s = '' OR p.code = %(party)s) AND (%(status)s = '' OR f.status = %(status)s)
ORDER BY f.id LIMIT %(limit)s

-- name: due
-- What belongs to a number is charged by its order until somebody has it.
SELECT f.id FROM recurring_fee f LEFT JOIN did d ON d.id = f.did_id
WHERE f.next_at <= %(now)s AND f.status = 'active' AND (f.did_id IS NULL OR d.status = 'assigned')
ORDER BY f.next_at LIMIT %(limit)s

-- name: begin_term
UPDATE recurring_fee SET term_from = %(term_from)s, term_to = %(term_to)s, attempts = 0, next_at = %(next_at)s
WHERE id = %(id)s

-- name: look_at
UPDATE recurring_fee SET next_at = %s WHERE id = %s

-- name: paid
UPDATE recurring_fee SET paid_until = term_to, term_from = NULL, term_to = NULL, attempts = 0, failing_since = NULL,
       reason = '', next_at = CASE status WHEN 'active' THEN %(next_at)s::timestamptz END
WHERE id = %(id)s AND term_from = %(term_from)s

-- name: refused
UPDATE recurring_fee SET attempts = attempts + 1, failing_since = %(failing_since)s, reason = %(reason)s,
       next_at = %(next_at)s
WHERE id = %(id)s

-- name: close
UPDATE recurring_fee SET status = %(status)s, next_at = NULL, term_from = NULL, term_to = NULL,
       ends_on = coalesce(%(ends_on)s, ends_on), reason = %(reason)s
WHERE id = %(id)s AND status = 'active'

-- name: set_end
UPDATE recurring_fee SET ends_on = %s WHERE id = %s

-- name: set_grace
UPDATE recurring_fee SET grace_days = %s WHERE id = %s

-- name: commitment_parties
-- Who agreed to pay a minimum, and the last month of which that is written down.
SELECT p.id AS party_id, p.code AS party, p.timezone, r.code AS plan, (r.terms #>> '{commitment,amount}')::numeric AS agreed,
       r.terms #>> '{commitment,currency}' AS currency,
       (SELECT max(c.month) FROM commitment c WHERE c.party_id = p.id) AS last_month
FROM party p JOIN rate_plan r ON r.id = p.plan_id
WHERE jsonb_typeof(r.terms -> 'commitment') = 'object' AND p.kind IN ('customer', 'reseller')
  AND p.id > %(after)s ORDER BY p.id LIMIT %(limit)s

-- name: open_month
INSERT INTO commitment (party_id, month, from_on, plan, agreed, currency, next_at)
VALUES (%(party_id)s, %(month)s, %(from_on)s, %(plan)s, %(agreed)s, %(currency)s, %(next_at)s)
ON CONFLICT (party_id, month) DO NOTHING

-- name: months_due
SELECT c.*, p.code AS party, p.timezone FROM commitment c JOIN party p ON p.id = c.party_id
WHERE c.status IN ('open', 'due') AND c.next_at <= %(now)s ORDER BY c.next_at LIMIT %(limit)s

-- name: months
SELECT c.*, p.code AS party, p.timezone FROM commitment c JOIN party p ON p.id = c.party_id
WHERE (%(party)s = '' OR p.code = %(party)s) ORDER BY c.month DESC, p.code LIMIT %(limit)s

-- name: month
SELECT c.*, p.code AS party, p.timezone FROM commitment c JOIN party p ON p.id = c.party_id
WHERE c.party_id = %s AND c.month = %s

-- name: month_worked_out
UPDATE commitment SET status = %(status)s, amount = %(amount)s, spent = %(spent)s, shortfall = %(shortfall)s
WHERE party_id = %(party_id)s AND month = %(month)s AND status = 'open'

-- name: month_charged
UPDATE commitment SET status = 'charged', session_id = %(session_id)s, reason = ''
WHERE party_id = %(party_id)s AND month = %(month)s AND status = 'due'

-- name: month_refused
UPDATE commitment SET status = %(status)s, attempts = attempts + 1, reason = %(reason)s, next_at = %(next_at)s
WHERE party_id = %(party_id)s AND month = %(month)s AND status = 'due' AND attempts = %(attempts)s

-- name: spent
-- What was used in a period, less what was given back; not what was charged for earlier months.
SELECT w.currency, coalesce(sum(CASE WHEN e.debit_account = e.wallet_id THEN e.amount ELSE -e.amount END), 0) AS spent
FROM wallet w JOIN entry e ON e.wallet_id = w.id
WHERE w.party_id = %(party_id)s AND e.day BETWEEN %(first)s AND %(last)s AND e.at >= %(begin)s AND e.at < %(end)s
  AND e.code IN ('usage', 'overrun', 'late', 'rated', 'correction', 'reversal', 'rebate', 'refund')
  AND NOT EXISTS (SELECT FROM commitment c WHERE c.party_id = w.party_id AND c.session_id = e.session_id)
GROUP BY w.currency
