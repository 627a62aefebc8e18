-- name: recent
SELECT base, quote, day, trim_scale(rate) AS rate, source, loaded_at FROM fx_rate WHERE day >= %s

-- name: days
SELECT base, quote, day, trim_scale(rate) AS rate, source, loaded_at FROM fx_rate WHERE day BETWEEN %s AND %s

-- name: rates
SELECT base, quote, day, trim_scale(rate) AS rate, source, loaded_at FROM fx_rate
WHERE (%(base)s::text IS NULL OR base = %(base)s) AND (%(quote)s::text IS NULL OR quote = %(quote)s)
  AND (%(last_day)s::date IS NULL OR day < %(last_day)s
       OR (day = %(last_day)s AND (base, quote) > (%(last_base)s::text, %(last_quote)s::text)))
ORDER BY day DESC, base, quote LIMIT %(limit)s

-- name: in_force
SELECT base, quote, day, trim_scale(rate) AS rate, source, loaded_at FROM (
    SELECT DISTINCT ON (base, quote) base, quote, day, rate, source, loaded_at FROM fx_rate
    WHERE (%(base)s::text IS NULL OR base = %(base)s) AND (%(quote)s::text IS NULL OR quote = %(quote)s)
      AND day <= %(day)s
    ORDER BY base, quote, day DESC
) AS newest
WHERE %(last_day)s::date IS NULL OR day < %(last_day)s
   OR (day = %(last_day)s AND (base, quote) > (%(last_base)s::text, %(last_quote)s::text))
ORDER BY day DESC, base, quote LIMIT %(limit)s

-- name: rate
SELECT base, quote, day, trim_scale(rate) AS rate, source, loaded_at FROM fx_rate WHERE base = %s AND quote = %s AND day = %s

-- name: write
INSERT INTO fx_rate AS held (base, quote, day, rate, source)
SELECT * FROM unnest(%s::text[], %s::text[], %s::date[], %s::numeric[], %s::text[])
ON CONFLICT (base, quote, day) DO UPDATE SET rate = excluded.rate, source = excluded.source, loaded_at = now()
WHERE held.rate <> excluded.rate
RETURNING (xmax = 0) AS added

-- name: pairs
SELECT DISTINCT base, quote FROM fx_rate

-- name: places
SELECT npanxx, state FROM npanxx

-- name: write_places
INSERT INTO npanxx AS held (npanxx, state, lata, ocn)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT (npanxx) DO UPDATE SET state = excluded.state, lata = excluded.lata, ocn = excluded.ocn
WHERE (held.state, held.lata, held.ocn) IS DISTINCT FROM (excluded.state, excluded.lata, excluded.ocn)

-- name: clear_places
DELETE FROM npanxx

-- name: count_places
SELECT count(*) AS known FROM npanxx
