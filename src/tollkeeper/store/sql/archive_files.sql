-- name: settings
-- DuckDB: bounded memory, no look for extensions on the network, times in UTC.
SET autoinstall_known_extensions = false;
SET TimeZone = 'UTC';

-- name: sorted
SELECT {columns} FROM read_parquet({source}) ORDER BY {first}, start_at, batch_id, line

-- name: totals
SELECT count(*) AS rows, coalesce(sum(charge), 0) AS charge, coalesce(sum(cost), 0) AS cost
FROM source;

-- name: candidates
-- Where the records of one caller or one call lie in the file that is sorted by called number.
SELECT called, start_at, batch_id, line FROM {source}
WHERE {conditions}
ORDER BY start_at, batch_id, line LIMIT {limit}

-- name: rows
SELECT {columns} FROM {source}
WHERE {conditions}
ORDER BY start_at, batch_id, line {limit}
