-- What parties earn by what they sell for us: a percentage of turnover or of margin, by service.

-- service '' is every service that has no rule of its own. valid_to is the first day without it.
-- currency is that of the wallet that is credited.
CREATE TABLE commission_rule (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    service     text NOT NULL DEFAULT '',
    basis       text NOT NULL CHECK (basis IN ('turnover', 'margin')),
    percent     numeric(9, 6) NOT NULL CHECK (percent > 0 AND percent <= 100),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_from  date NOT NULL,
    valid_to    date,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (valid_to > valid_from)
);
CREATE INDEX commission_rule_party ON commission_rule (party_id, service);

-- One rule worked out for one period, once; no two runs of a rule overlap. lines: what it was worked
-- out from, a currency each. entry_id is null where nothing was earned.
CREATE TABLE commission_run (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id       bigint NOT NULL REFERENCES commission_rule ON DELETE RESTRICT,
    party_id      bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    period_begin  date NOT NULL,
    period_end    date NOT NULL,
    service       text NOT NULL,
    basis         text NOT NULL,
    percent       numeric(9, 6) NOT NULL,
    currency      text NOT NULL,
    turnover      numeric(28, 8) NOT NULL,
    own           numeric(28, 8) NOT NULL,
    commission    numeric(28, 8) NOT NULL CHECK (commission >= 0),
    lines         jsonb NOT NULL,
    entry_id      bigint,
    actor         text NOT NULL,
    at            timestamptz NOT NULL,
    UNIQUE (rule_id, period_begin, period_end),
    CHECK (period_end > period_begin)
);
CREATE INDEX commission_run_party ON commission_run (party_id, period_begin);

SELECT isolate('commission_rule', 'party_id');
SELECT isolate('commission_run', 'party_id');
GRANT SELECT ON commission_run TO tollkeeper_party;
