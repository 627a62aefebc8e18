-- name: add
INSERT INTO transfer (at, from_wallet, to_wallet, from_party, to_party, amount, currency, actor, reason)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id

-- name: of_party
-- The other side may be above whoever asks: its code is not shown then.
SELECT t.id, t.at, f.code AS from_party, g.code AS to_party, t.amount, t.currency, t.actor, t.reason
FROM transfer t LEFT JOIN party f ON f.id = t.from_party LEFT JOIN party g ON g.id = t.to_party
WHERE (t.from_party = %(party)s OR t.to_party = %(party)s) AND t.id > %(after)s
ORDER BY t.id LIMIT %(limit)s
