-- name: rows
-- Rows of rate cards as they stand on their version; of a cost-plus card those of its cost card.
SELECT wanted.card_id, wanted.version, wanted.row_no, c.currency, c.per, c.decimals, c.rounding,
       coalesce(cost.code, '') AS cost_card, r.first_price, r.next_price, r.first_interval, r.next_interval,
       r.connect_fee, r.attempt_fee, r.minimum, r.free_below, r.surcharge, r.cap
FROM unnest(%s::bigint[], %s::integer[], %s::integer[]) AS wanted (card_id, version, row_no)
JOIN rate_card c ON c.id = wanted.card_id
LEFT JOIN rate_card cost ON cost.id = c.cost_card_id
JOIN rate_version v ON v.card_id = coalesce(c.cost_card_id, c.id) AND v.version = wanted.version
JOIN rate_row r ON r.version_id = v.id AND r.row_no = wanted.row_no

-- name: meters
SELECT id, party_id, used, held, base, cap, stamp, kind, code, unit, begins_at, ends_at
FROM meter WHERE id = ANY (%s::bigint[])
