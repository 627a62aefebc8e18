-- What whoever works for a party (role tollkeeper_party) may see and change of the tables made before.
-- A table that is not named here is the operator's alone. Rights on columns say what is never shown,
-- policies which rows are; the services say the rest: what a party may do, and to whom.

-- A role that only the owner of this database may take on; PostgreSQL 16 asks for that by name.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        IF NOT pg_has_role(CURRENT_USER, 'tollkeeper_party', 'SET') THEN
            EXECUTE format('GRANT tollkeeper_party TO %I WITH SET TRUE', CURRENT_USER);
        END IF;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tollkeeper_party', current_schema());
END $$;

-- --- the tree --------------------------------------------------------------------------------------
-- A party changes those below it, never itself, and makes new ones below itself only. One that is just
-- being made has no place in the closure yet, so its parent speaks for it.
ALTER TABLE party ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON party FOR SELECT TO tollkeeper_party USING (
    id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
    OR parent_id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
);
CREATE POLICY made ON party FOR INSERT TO tollkeeper_party WITH CHECK (
    parent_id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
);
CREATE POLICY changed ON party FOR UPDATE TO tollkeeper_party USING (
    id <> own_party() AND id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
) WITH CHECK (
    parent_id IN (SELECT party_id FROM party_above WHERE ancestor_id = own_party())
);
GRANT SELECT ON party TO tollkeeper_party;
-- All but overcommit, which bounds the reseller itself.
GRANT INSERT (code, name, kind, parent_id, plan_id, status, kill_on_suspend, timezone, max_sessions, max_cps,
              max_cost, max_seconds, dial_rules, billing, low_balance, low_sessions, rate_change),
      UPDATE (name, parent_id, plan_id, status, kill_on_suspend, timezone, max_sessions, max_cps, max_cost,
              max_seconds, dial_rules, billing, low_balance, low_sessions, rate_change)
    ON party TO tollkeeper_party;

SELECT isolate('party_move', 'party_id');
GRANT SELECT, INSERT ON party_move TO tollkeeper_party;

-- --- money -----------------------------------------------------------------------------------------
SELECT isolate('wallet', 'party_id');
GRANT SELECT ON wallet TO tollkeeper_party;
GRANT INSERT (id, party_id, currency, credit_limit, agreed_limit),
      UPDATE (credited, debited, credit_limit, agreed_limit, temp_limit, temp_until, daily_cap, monthly_cap,
              alert_at, parked, version, stamp)
    ON wallet TO tollkeeper_party;

-- A wallet's account has the code of its party; what vendors cost is nobody else's business.
ALTER TABLE account ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON account TO tollkeeper_party USING (
    CASE kind WHEN 'wallet' THEN name IN (SELECT code FROM party) ELSE kind <> 'cost' END
) WITH CHECK (
    CASE kind WHEN 'wallet' THEN name IN (SELECT code FROM party) ELSE kind = 'transfer' END
);
GRANT SELECT, INSERT (kind, currency, name) ON account TO tollkeeper_party;

-- Money is moved within the tree, never made: a party posts nothing but transfers.
ALTER TABLE entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON entry FOR SELECT TO tollkeeper_party USING (wallet_id IN (SELECT id FROM wallet));
CREATE POLICY made ON entry FOR INSERT TO tollkeeper_party WITH CHECK (
    code IN ('transfer_out', 'transfer_in') AND wallet_id IN (SELECT id FROM wallet)
);
GRANT SELECT, INSERT ON entry TO tollkeeper_party;

SELECT isolate('meter', 'party_id');
GRANT SELECT ON meter TO tollkeeper_party;

-- --- sessions --------------------------------------------------------------------------------------
-- A session's body has the legs of those above, too: the services show only those that are seen.
SELECT isolate('live_session', 'party_id');
SELECT isolate('closed_session', 'party_id');
GRANT SELECT ON live_session, closed_session TO tollkeeper_party;
ALTER TABLE session_message ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON session_message FOR SELECT TO tollkeeper_party USING (
    EXISTS (SELECT FROM closed_session s WHERE s.id = session_id AND s.opened_day = session_message.day)
    OR EXISTS (SELECT FROM live_session s WHERE s.id = session_id)
);
GRANT SELECT ON session_message TO tollkeeper_party;

-- --- records ---------------------------------------------------------------------------------------
-- Never the vendor's side: who carried a call, over which trunk, and what that cost.
SELECT isolate('usage', 'customer_id');
GRANT SELECT (day, batch_id, line, start_at, answer_at, duration_ms, call_id, leg, caller, called, service,
              customer_id, sip, q850, pdd_ms, mos, state, session_id, destination, sell_wallet, sell_version,
              sell_row, sell_prefix, sell_billed, charge)
    ON usage TO tollkeeper_party;
SELECT isolate('usage_leg', 'party_id');
GRANT SELECT ON usage_leg TO tollkeeper_party;
ALTER TABLE usage_revision ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON usage_revision FOR SELECT TO tollkeeper_party USING (
    leg <> 1 AND wallet_id IN (SELECT id FROM wallet)
);
GRANT SELECT ON usage_revision TO tollkeeper_party;
SELECT isolate('usage_hour', 'customer_id');
GRANT SELECT (day, hour, batch_id, customer_id, service, destination, prefix, sell_currency, attempts, answers,
              effective, duration_ms, sell_billed, pdd_ms, pdd_count, revenue)
    ON usage_hour TO tollkeeper_party;
GRANT SELECT (id, undone_by) ON cdr_batch TO tollkeeper_party;

-- --- prices ----------------------------------------------------------------------------------------
SELECT isolate('rate_card', 'owner_id');
GRANT SELECT, INSERT, UPDATE ON rate_card TO tollkeeper_party;
ALTER TABLE rate_version ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rate_version TO tollkeeper_party USING (card_id IN (SELECT id FROM rate_card));
GRANT SELECT, INSERT, UPDATE ON rate_version TO tollkeeper_party;
DO $$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['rate_row', 'rate_refusal', 'rate_change'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target);
        EXECUTE format('CREATE POLICY own ON %I TO tollkeeper_party'
                       ' USING (version_id IN (SELECT id FROM rate_version))', target);
        EXECUTE format('GRANT SELECT, INSERT ON %I TO tollkeeper_party', target);
    END LOOP;
END $$;
SELECT isolate('rate_plan', 'owner_id');
GRANT SELECT, INSERT, UPDATE ON rate_plan TO tollkeeper_party;
ALTER TABLE rate_plan_card ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rate_plan_card TO tollkeeper_party
    USING (plan_id IN (SELECT id FROM rate_plan))
    WITH CHECK (plan_id IN (SELECT id FROM rate_plan) AND card_id IN (SELECT id FROM rate_card));
GRANT SELECT, INSERT, UPDATE, DELETE ON rate_plan_card TO tollkeeper_party;
SELECT isolate('zone', 'owner_id');
SELECT isolate('time_profile', 'owner_id');
GRANT SELECT, INSERT, UPDATE, DELETE ON zone, time_profile TO tollkeeper_party;
GRANT SELECT ON fx_rate, npanxx TO tollkeeper_party;

-- --- keys, and what was done -----------------------------------------------------------------------
-- The hash of a secret can be stored and never read.
SELECT isolate('api_key', 'party_id');
GRANT SELECT (id, name, scopes, switch, created_at, revoked_at, party_id),
      INSERT (name, hash, scopes, switch, party_id), UPDATE (revoked_at)
    ON api_key TO tollkeeper_party;
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON idempotency TO tollkeeper_party USING (api_key_id IN (SELECT id FROM api_key));
GRANT SELECT, INSERT, UPDATE ON idempotency TO tollkeeper_party;
GRANT INSERT (actor, action, subject, detail) ON audit TO tollkeeper_party;
