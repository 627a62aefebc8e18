-- name: record
WITH noted AS (
    INSERT INTO audit (actor, action, subject, detail) VALUES (%s, %s, %s, %s)
)
SELECT pg_notify('tollkeeper', %s)
