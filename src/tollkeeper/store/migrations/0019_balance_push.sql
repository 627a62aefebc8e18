-- Payments by which an account on a switch's own platform (VOS3000) follows a wallet. The row is there
-- before the platform is asked; mark is the memo by which the payment is looked for in its history.
--   open    asked, or about to be; what became of it is not known yet
--   done    the platform's history has it              failed   it has not, and will not
-- One account has one open payment at most: nothing is paid again before the last one is known.
CREATE TABLE balance_push (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer_id      bigint NOT NULL REFERENCES peer ON DELETE CASCADE,
    account      text NOT NULL,
    mark         text NOT NULL UNIQUE,
    amount       numeric(28, 8) NOT NULL CHECK (amount <> 0),
    money_before numeric(28, 8) NOT NULL,
    status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done', 'failed')),
    attempts     integer NOT NULL DEFAULT 0,
    at           timestamptz NOT NULL,
    ended_at     timestamptz,
    detail       text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX balance_push_open ON balance_push (peer_id, account) WHERE status = 'open';
CREATE INDEX balance_push_at ON balance_push (at);
