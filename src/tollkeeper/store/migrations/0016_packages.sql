-- Packages that were bought. Term 0 begins when one is bought, each next one where the last ends; the
-- units of a term are a meter. pending: the price of the term is being charged; who finds it so charges
-- again, under the same key, and goes on. request: whoever asks again with it has bought once.
CREATE TABLE package_sale (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    plan        text NOT NULL,
    code        text NOT NULL,
    request     text UNIQUE,
    bought_at   timestamptz NOT NULL,
    term        integer NOT NULL DEFAULT 0 CHECK (term >= 0),
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'active', 'ended', 'refused')),
    renew       boolean NOT NULL,
    units       bigint NOT NULL CHECK (units >= 0),
    rollover    bigint NOT NULL DEFAULT 0 CHECK (rollover >= 0),
    period      text NOT NULL CHECK (period IN ('day', 'week', 'month')),
    unit        text NOT NULL,
    price       numeric(28, 8) NOT NULL CHECK (price >= 0),
    currency    text NOT NULL DEFAULT '',
    meter_id    bigint REFERENCES meter ON DELETE RESTRICT,
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,
    reason      text NOT NULL DEFAULT '',
    actor       text NOT NULL DEFAULT ''
);
CREATE INDEX package_sale_party ON package_sale (party_id, id);
CREATE INDEX package_sale_due ON package_sale (ends_at) WHERE status IN ('pending', 'active');

SELECT isolate('package_sale', 'party_id');
GRANT SELECT ON package_sale TO tollkeeper_party;
