-- What we are connected to: switches and other peers, who calls through them, and who is told of what.

-- A peer speaks a protocol with us. Its calls are kept under the name of its switch. addresses are IP
-- addresses or networks it comes from (or is reached at, the first one); secret is what the protocol
-- proves it by; options are those of its kind. on_failure: what is done with new calls while we cannot
-- charge; risk_seconds bounds what is granted then.
CREATE TABLE peer (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code          text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    kind          text NOT NULL CHECK (kind IN ('radius', 'freeswitch', 'kamailio', 'asterisk', 'vos3000',
                                                'diameter', 'esme', 'smsc', 'sip')),
    switch        text NOT NULL CHECK (switch ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    addresses     text[] NOT NULL DEFAULT '{}',
    secret        text NOT NULL DEFAULT '',
    dialect       text NOT NULL DEFAULT '',
    trunk         text NOT NULL DEFAULT '',
    timezone      text NOT NULL DEFAULT 'UTC',
    on_failure    text NOT NULL DEFAULT 'refuse' CHECK (on_failure IN ('refuse', 'allow')),
    risk_seconds  integer NOT NULL DEFAULT 0 CHECK (risk_seconds >= 0),
    options       jsonb NOT NULL DEFAULT '{}',
    enabled       boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX peer_switch ON peer (switch);

-- Which sessions were charged after they had closed: their records may have been charged before.
CREATE INDEX outbox_late ON outbox (at) WHERE kind = 'session.late';

-- Who may call by a user name. ha1 is MD5(username:realm:password) as RFC 2617 has it, in hexadecimal.
CREATE TABLE credential (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username    text NOT NULL,
    realm       text NOT NULL DEFAULT '',
    ha1         text NOT NULL CHECK (ha1 ~ '^[0-9a-f]{32}$'),
    party_id    bigint NOT NULL REFERENCES party ON DELETE RESTRICT,
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (username, realm)
);
CREATE INDEX credential_party ON credential (party_id);

-- By what a switch knows a call that is up, where more than its id is needed to reach it. Written a
-- moment after the call began; a call whose row was lost is reached again with its next message.
CREATE TABLE call_handle (
    key   text PRIMARY KEY,
    body  jsonb NOT NULL,
    at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX call_handle_at ON call_handle (at);

-- Messages passed on to an SMSC: id is what the sender was told, upstream_id what the SMSC said. A
-- receipt waits here until its sender has it.
CREATE TABLE sms_message (
    id           text PRIMARY KEY,
    at           timestamptz NOT NULL,
    peer         text NOT NULL,
    key          text NOT NULL,
    upstream     text NOT NULL,
    upstream_id  text NOT NULL,
    source       text NOT NULL,
    dest         text NOT NULL,
    wants        smallint NOT NULL DEFAULT 0,
    state        text NOT NULL DEFAULT 'accepted',
    receipt      jsonb,
    told_at      timestamptz
);
CREATE INDEX sms_message_upstream ON sms_message (upstream, upstream_id);
CREATE INDEX sms_message_waiting ON sms_message (peer) WHERE receipt IS NOT NULL AND told_at IS NULL;
CREATE INDEX sms_message_at ON sms_message (at);

-- What happened, in the order in which it can be read: written by one process at a time.
CREATE TABLE feed (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    party_id    bigint,
    switch      text NOT NULL DEFAULT '',
    session_id  uuid,
    payload     jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX feed_at ON feed (at);

-- Rows of the outbox of which no event was made yet: put here with the row itself, taken away with the
-- event, so that none is lost and none is made twice, while whoever ends a call holds the row itself.
CREATE TABLE outbox_unfed (
    outbox_id  bigint PRIMARY KEY
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
INSERT INTO outbox_unfed (outbox_id) SELECT id FROM outbox WHERE done_at IS NULL;

CREATE FUNCTION outbox_to_feed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outbox_unfed (outbox_id) SELECT id FROM fresh;
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_to_feed AFTER INSERT ON outbox REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_to_feed();

-- A payment is told of by whoever posts it, a party among them, who may put nothing else there.
CREATE FUNCTION tell_payment(
    paid_at timestamptz, paid_wallet bigint, paid_by text, paid numeric, now_balance numeric
)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO outbox (at, kind, payload, next_at)
    SELECT paid_at, 'wallet.topup', jsonb_build_object(
        'key', p.code || '/' || w.currency, 'party', p.code, 'party_id', p.id, 'currency', w.currency,
        'by', paid_by, 'amount', trim_scale(paid)::text, 'balance', trim_scale(now_balance)::text
    ), paid_at
    FROM wallet w JOIN party p ON p.id = w.party_id
    WHERE w.id = paid_wallet AND (own_party() IS NULL OR EXISTS (
        SELECT FROM party_above a WHERE a.party_id = p.id AND a.ancestor_id = own_party()
    ))
$$;

-- Who listens to a stream, where the ends of calls are told only then: a party, or 0 for the operator.
-- It is said again and again; webhooks say it by being there.
CREATE TABLE feed_interest (
    party_id  bigint PRIMARY KEY,
    until     timestamptz NOT NULL
);

-- Who wants to be told by HTTP; party_id bounds it to what happens at that party and below it.
CREATE TABLE webhook (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code            text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    party_id        bigint REFERENCES party ON DELETE RESTRICT,
    url             text NOT NULL,
    secret          text NOT NULL,
    old_secret      text NOT NULL DEFAULT '',
    old_until       timestamptz,
    events          text[] NOT NULL,
    enabled         boolean NOT NULL DEFAULT true,
    failing_since   timestamptz,
    disabled_why    text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_party ON webhook (party_id);

CREATE TABLE webhook_delivery (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id   bigint NOT NULL REFERENCES webhook ON DELETE CASCADE,
    feed_id      bigint NOT NULL,
    at           timestamptz NOT NULL,
    kind         text NOT NULL,
    body         text NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL,
    done_at      timestamptz,
    status       integer,
    last_error   text NOT NULL DEFAULT '',
    UNIQUE (webhook_id, feed_id)
);
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, next_at) WHERE done_at IS NULL;
CREATE INDEX webhook_delivery_of ON webhook_delivery (webhook_id, id);
CREATE INDEX webhook_delivery_done ON webhook_delivery (done_at);

-- A party manages its own webhooks and those below it, and hears what happens there; peers, credentials
-- and what they need are the operator's.
SELECT isolate('webhook', 'party_id');
GRANT SELECT (id, code, party_id, url, events, enabled, failing_since, disabled_why, old_until, created_at),
      INSERT (code, party_id, url, secret, events, enabled),
      UPDATE (url, secret, old_secret, old_until, events, enabled, failing_since, disabled_why), DELETE
    ON webhook TO tollkeeper_party;
ALTER TABLE webhook_delivery ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON webhook_delivery TO tollkeeper_party USING (webhook_id IN (SELECT id FROM webhook));
GRANT SELECT, INSERT, UPDATE ON webhook_delivery TO tollkeeper_party;
SELECT isolate('feed', 'party_id');
GRANT SELECT ON feed TO tollkeeper_party;
