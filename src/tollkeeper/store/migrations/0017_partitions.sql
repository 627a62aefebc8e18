-- As before, but whether a day is there is asked of the catalogue's rows. to_regclass asks a cache of the
-- session, which need not have heard yet of what another one made while this one waited for the lock.
CREATE OR REPLACE FUNCTION ensure_partitions(parents text[], from_day date, days integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    parent text;
    day date;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(7201, 1);
    FOREACH parent IN ARRAY parents LOOP
        FOR day IN SELECT from_day + n FROM generate_series(0, days - 1) AS n LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF NOT EXISTS (
                SELECT FROM pg_class c JOIN pg_class p ON p.relnamespace = c.relnamespace
                WHERE p.oid = parent::regclass AND c.relname = child
            ) THEN
                -- Attaching waits for nobody who reads or writes the other days.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
                               child, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               parent, child, day, day + 1);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
