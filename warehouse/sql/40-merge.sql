-- curated.merge_batch(n): moves at most n records from the queue into curated, in one transaction.
--
-- Why any order of arrival gives the same tables: a batch does not apply its records one by one. It collects the ids
-- that they touch, and derives what curated must say about these ids, their business keys and their payments, from all
-- records that stage.parsed has of them. The order that decides (received, topic, partition, offset) is the records' own.
-- Why it can be cut anywhere: taking from the queue and changing curated are one transaction.
-- Why twice changes nothing: rows are written only where they differ.

-- Work tables of this session; empty again at each commit.
CREATE FUNCTION curated.open_work() RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $$
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS work_taken (topic text, part integer, off bigint, PRIMARY KEY (topic, part, off))
        ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_fresh (LIKE stage.parsed, payload jsonb, PRIMARY KEY (topic, part, off))
        ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_ids (source text, event_id text, PRIMARY KEY (source, event_id))
        ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_contenders (LIKE stage.parsed, place bigint, same boolean,
        PRIMARY KEY (topic, part, off), UNIQUE (source, event_id, place)) ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_keys (source text, business_key bytea, PRIMARY KEY (source, business_key))
        ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_payments (source text, payment_id text, PRIMARY KEY (source, payment_id))
        ON COMMIT DELETE ROWS;
END $$;

-- Live records first. Returns how many were taken.
CREATE FUNCTION curated.take(max_rows integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    taken integer;
BEGIN
    -- By ctid: only the holder of the lock deletes here, and nobody updates.
    WITH gone AS (
        DELETE FROM stage.queue
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM stage.queue ORDER BY lane, id LIMIT max_rows))
        RETURNING topic, part, off
    )
    INSERT INTO work_taken SELECT topic, part, off FROM gone;
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;
END $$;

-- Reads the taken records into stage.parsed, and collects the ids that they touch: those that they have, and those that
-- they had when an older rule read them.
CREATE FUNCTION curated.parse_taken() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO work_ids
    SELECT DISTINCT p.source, p.event_id FROM work_taken t JOIN stage.parsed p USING (topic, part, off)
    WHERE p.reason IS NULL;

    INSERT INTO work_fresh
    SELECT t.topic, t.part, t.off, coalesce(s.source, t.topic),
           coalesce(to_timestamp(r.received_ms / 1000.0), 'infinity'),
           f.event_id, f.type, f.kind, f.account_id, f.card_id, f.amount, f.currency, f.event_ts, f.payment_id,
           f.fingerprint, f.business_key, f.reason, j.doc
    FROM work_taken t
    JOIN raw.events r ON r.__connect_topic = t.topic AND r.__connect_partition = t.part AND r.__connect_offset = t.off
    LEFT JOIN stage.sources s ON s.topic = t.topic
    CROSS JOIN LATERAL stage.json_of(r.event) j
    CROSS JOIN LATERAL stage.read(j.doc, j.reason, r.event_id, r.sluice_error) f;

    MERGE INTO stage.parsed p USING work_fresh f ON p.topic = f.topic AND p.part = f.part AND p.off = f.off
    WHEN MATCHED AND (p.source, p.received, p.event_id, p.type, p.kind, p.account_id, p.card_id, p.amount, p.currency,
                      p.event_ts, p.payment_id, p.fingerprint, p.business_key, p.reason)
         IS DISTINCT FROM (f.source, f.received, f.event_id, f.type, f.kind, f.account_id, f.card_id, f.amount,
                           f.currency, f.event_ts, f.payment_id, f.fingerprint, f.business_key, f.reason) THEN
        UPDATE SET source = f.source, received = f.received, event_id = f.event_id, type = f.type, kind = f.kind,
                   account_id = f.account_id, card_id = f.card_id, amount = f.amount, currency = f.currency,
                   event_ts = f.event_ts, payment_id = f.payment_id, fingerprint = f.fingerprint,
                   business_key = f.business_key, reason = f.reason
    WHEN NOT MATCHED THEN
        INSERT VALUES (f.topic, f.part, f.off, f.source, f.received, f.event_id, f.type, f.kind, f.account_id, f.card_id,
                       f.amount, f.currency, f.event_ts, f.payment_id, f.fingerprint, f.business_key, f.reason);

    INSERT INTO work_ids SELECT DISTINCT source, event_id FROM work_fresh WHERE reason IS NULL
    ON CONFLICT DO NOTHING;

    INSERT INTO work_contenders
    SELECT p.*, row_number() OVER first, p.fingerprint = first_value(p.fingerprint) OVER first
    FROM work_ids i JOIN stage.parsed p ON p.source = i.source AND p.event_id = i.event_id AND p.reason IS NULL
    WINDOW first AS (PARTITION BY p.source, p.event_id ORDER BY p.received, p.topic, p.part, p.off);
END $$;

-- What the touched events say about business keys and payments: called before and after they change.
CREATE FUNCTION curated.collect() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO work_keys SELECT DISTINCT e.source, e.business_key
    FROM work_ids i JOIN curated.events e USING (source, event_id) WHERE e.business_key IS NOT NULL
    ON CONFLICT DO NOTHING;
    INSERT INTO work_payments SELECT DISTINCT e.source, e.payment_id
    FROM work_ids i JOIN curated.events e USING (source, event_id) WHERE e.payment_id IS NOT NULL
    ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION curated.merge_events() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := clock_timestamp();
BEGIN
    -- Only on a second reading can an id lose its last record, or an event's place be another record's before.
    DELETE FROM curated.events e USING work_ids i
    WHERE e.source = i.source AND e.event_id = i.event_id
      AND NOT EXISTS (SELECT FROM work_contenders c WHERE c.source = i.source AND c.event_id = i.event_id);

    MERGE INTO curated.events e USING (
        SELECT c.*, coalesce(f.payload, (SELECT (stage.json_of(r.event)).doc FROM raw.events r
                                         WHERE r.__connect_topic = c.topic AND r.__connect_partition = c.part
                                           AND r.__connect_offset = c.off)) AS payload
        FROM work_contenders c LEFT JOIN work_fresh f USING (topic, part, off)
        WHERE c.place = 1
    ) w ON e.source = w.source AND e.event_id = w.event_id
    WHEN MATCHED AND (e.topic, e.part, e.off, e.kind, e.type, e.account_id, e.card_id, e.amount, e.currency, e.event_ts,
                      e.received, e.payment_id, e.business_key, e.payload)
         IS DISTINCT FROM (w.topic, w.part, w.off, w.kind, w.type, w.account_id, w.card_id, w.amount, w.currency,
                           w.event_ts, w.received, w.payment_id, w.business_key, w.payload) THEN
        UPDATE SET topic = w.topic, part = w.part, off = w.off, kind = w.kind, type = w.type, account_id = w.account_id,
                   card_id = w.card_id, amount = w.amount, currency = w.currency, event_ts = w.event_ts,
                   received = w.received, payment_id = w.payment_id, business_key = w.business_key,
                   payload = w.payload, changed_at = now_is
    WHEN NOT MATCHED THEN
        INSERT VALUES (w.source, w.event_id, w.kind, w.type, w.account_id, w.card_id, w.amount, w.currency, w.event_ts,
                       w.received, w.payment_id, w.business_key, NULL, w.payload, w.topic, w.part, w.off, now_is, now_is);
END $$;

CREATE FUNCTION curated.merge_losers() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM curated.duplicates d USING work_ids i
    WHERE d.source = i.source AND d.event_id = i.event_id
      AND NOT EXISTS (SELECT FROM work_contenders c WHERE c.topic = d.topic AND c.part = d.part AND c.off = d.off
                      AND c.event_id = d.event_id AND c.place > 1 AND c.same);
    MERGE INTO curated.duplicates d USING (SELECT * FROM work_contenders WHERE place > 1 AND same) c
    ON d.topic = c.topic AND d.part = c.part AND d.off = c.off
    WHEN MATCHED AND (d.source, d.event_id, d.received) IS DISTINCT FROM (c.source, c.event_id, c.received) THEN
        UPDATE SET source = c.source, event_id = c.event_id, received = c.received
    WHEN NOT MATCHED THEN
        INSERT VALUES (c.topic, c.part, c.off, c.source, c.event_id, c.received);

    DELETE FROM curated.quarantine q USING work_ids i
    WHERE q.source = i.source AND q.event_id = i.event_id AND q.reason = 'id-conflict'
      AND NOT EXISTS (SELECT FROM work_contenders c WHERE c.topic = q.topic AND c.part = q.part AND c.off = q.off
                      AND c.place > 1 AND NOT c.same);
    DELETE FROM curated.quarantine q USING work_fresh f
    WHERE q.topic = f.topic AND q.part = f.part AND q.off = f.off AND q.reason <> 'id-conflict' AND f.reason IS NULL;
    MERGE INTO curated.quarantine q USING (
        SELECT topic, part, off, source, event_id, received, reason FROM work_fresh WHERE reason IS NOT NULL
        UNION ALL
        SELECT topic, part, off, source, event_id, received, 'id-conflict' FROM work_contenders
        WHERE place > 1 AND NOT same
    ) w ON q.topic = w.topic AND q.part = w.part AND q.off = w.off
    WHEN MATCHED AND (q.source, q.event_id, q.received, q.reason)
         IS DISTINCT FROM (w.source, w.event_id, w.received, w.reason) THEN
        UPDATE SET source = w.source, event_id = w.event_id, received = w.received, reason = w.reason,
                   since = clock_timestamp()
    WHEN NOT MATCHED THEN
        INSERT VALUES (w.topic, w.part, w.off, w.source, w.event_id, w.received, w.reason, clock_timestamp());
END $$;

-- Of the events with one business key the first received stands; the others are flagged, and kept.
CREATE FUNCTION curated.flag_business() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- A flag that moves, moves the payments of all events with the key.
    INSERT INTO work_payments SELECT DISTINCT e.source, e.payment_id
    FROM work_keys k JOIN curated.events e USING (source, business_key) WHERE e.payment_id IS NOT NULL
    ON CONFLICT DO NOTHING;

    UPDATE curated.events e SET duplicate_of = want.first, changed_at = clock_timestamp()
    FROM (
        SELECT x.source, x.event_id, nullif(first_value(x.event_id) OVER (
                   PARTITION BY x.source, x.business_key ORDER BY x.received, x.topic, x.part, x.off), x.event_id) AS first
        FROM work_keys k JOIN curated.events x USING (source, business_key)
    ) want
    WHERE e.source = want.source AND e.event_id = want.event_id AND e.duplicate_of IS DISTINCT FROM want.first;

    -- An event whose second reading has no business key any more is nobody's duplicate.
    UPDATE curated.events e SET duplicate_of = NULL, changed_at = clock_timestamp()
    FROM work_ids i
    WHERE e.source = i.source AND e.event_id = i.event_id AND e.business_key IS NULL AND e.duplicate_of IS NOT NULL;
END $$;

-- The state of payments, derived from events. The quality check `state-payments` compares all of it with curated.payments.
CREATE VIEW curated.payment_states AS
SELECT p.source, p.payment_id, p.event_id, p.account_id, p.card_id, p.amount, p.currency, p.event_ts, p.duplicate_of,
       s.refunds, s.refunded, s.chargebacks, s.charged_back, s.flagged,
       p.amount - s.refunded - s.charged_back AS net,
       CASE WHEN s.charged_back > 0 THEN 'charged-back'
            WHEN s.refunded >= p.amount AND s.refunds > 0 THEN 'refunded'
            WHEN s.refunds > 0 THEN 'partly-refunded'
            ELSE 'paid' END AS state
FROM curated.events p
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE kind = 'refund' AND duplicate_of IS NULL)::integer AS refunds,
           coalesce(sum(abs(amount)) FILTER (WHERE kind = 'refund' AND duplicate_of IS NULL), 0) AS refunded,
           count(*) FILTER (WHERE kind = 'chargeback' AND duplicate_of IS NULL)::integer AS chargebacks,
           coalesce(sum(abs(amount)) FILTER (WHERE kind = 'chargeback' AND duplicate_of IS NULL), 0) AS charged_back,
           count(*) FILTER (WHERE duplicate_of IS NOT NULL)::integer AS flagged
    FROM curated.events m
    WHERE m.source = p.source AND m.payment_id = p.payment_id AND m.kind IN ('refund', 'chargeback')
) s
WHERE p.kind = 'payment'
  -- Several payments under one payment_id: the first received is the payment, the check `payments-shared` tells of the rest.
  AND NOT EXISTS (SELECT FROM curated.events q WHERE q.source = p.source AND q.payment_id = p.payment_id
                  AND q.kind = 'payment' AND (q.received, q.topic, q.part, q.off) < (p.received, p.topic, p.part, p.off));

CREATE FUNCTION curated.merge_payments() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM curated.payments p USING work_payments w
    WHERE p.source = w.source AND p.payment_id = w.payment_id
      AND NOT EXISTS (SELECT FROM curated.events e WHERE e.source = w.source AND e.payment_id = w.payment_id
                      AND e.kind = 'payment');
    MERGE INTO curated.payments p USING (
        SELECT s.* FROM work_payments w JOIN curated.payment_states s USING (source, payment_id)
    ) s ON p.source = s.source AND p.payment_id = s.payment_id
    WHEN MATCHED AND (p.event_id, p.account_id, p.card_id, p.amount, p.currency, p.event_ts, p.duplicate_of, p.refunds,
                      p.refunded, p.chargebacks, p.charged_back, p.flagged, p.net, p.state)
         IS DISTINCT FROM (s.event_id, s.account_id, s.card_id, s.amount, s.currency, s.event_ts, s.duplicate_of,
                           s.refunds, s.refunded, s.chargebacks, s.charged_back, s.flagged, s.net, s.state) THEN
        UPDATE SET event_id = s.event_id, account_id = s.account_id, card_id = s.card_id, amount = s.amount,
                   currency = s.currency, event_ts = s.event_ts, duplicate_of = s.duplicate_of, refunds = s.refunds,
                   refunded = s.refunded, chargebacks = s.chargebacks, charged_back = s.charged_back,
                   flagged = s.flagged, net = s.net, state = s.state, changed_at = clock_timestamp()
    WHEN NOT MATCHED THEN
        INSERT VALUES (s.source, s.payment_id, s.event_id, s.account_id, s.card_id, s.amount, s.currency, s.event_ts,
                       s.duplicate_of, s.refunds, s.refunded, s.chargebacks, s.charged_back, s.flagged, s.net, s.state,
                       clock_timestamp());
END $$;

-- Returns how many records it took: 0 when the queue is empty, -1 when another session merges.
-- What a batch looks for lies in pages that are in memory, or come there with the first of its keys. At PostgreSQL's price
-- for them all of curated is read for each batch until there are some 250,000 events: the merge slows down as they grow.
CREATE FUNCTION curated.merge_batch(max_rows integer DEFAULT 2000) RETURNS integer LANGUAGE plpgsql
SET random_page_cost = 0.5 AS $$
DECLARE
    taken integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- A snapshot from before the lock would not show what the session that held it has written.
        RAISE EXCEPTION 'curated.merge_batch needs READ COMMITTED';
    END IF;
    -- Held until commit, so that the next one sees what this one did. The number is 'sluice' as a bigint.
    IF NOT pg_try_advisory_xact_lock(x'736c75696365'::bigint) THEN
        RETURN -1;
    END IF;
    PERFORM curated.open_work();
    taken := curated.take(max_rows);
    IF taken > 0 THEN
        -- Plans are made for the tables as they are now: those of a session's first batches saw empty ones.
        EXECUTE 'DISCARD PLANS';
        PERFORM curated.parse_taken();
        PERFORM curated.collect();
        PERFORM curated.merge_events();
        PERFORM curated.collect();
        PERFORM curated.merge_losers();
        PERFORM curated.flag_business();
        PERFORM curated.merge_payments();
        PERFORM quality.note_fields();
    END IF;
    RETURN taken;
END $$;

-- Merges what lies in raw between two offsets or two times once more, with today's rules, behind whatever is live.
-- NULL: no bound; `until_...` is not included. Returns how many records were queued.
CREATE FUNCTION curated.remerge(only_topic text, only_part integer, from_off bigint, until_off bigint,
                                from_time timestamptz, until_time timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    queued bigint;
BEGIN
    INSERT INTO stage.queue (topic, part, off, lane)
    SELECT __connect_topic, __connect_partition, __connect_offset, 1 FROM raw.events
    WHERE (only_topic IS NULL OR __connect_topic = only_topic) AND (only_part IS NULL OR __connect_partition = only_part)
      AND (from_off IS NULL OR __connect_offset >= from_off) AND (until_off IS NULL OR __connect_offset < until_off)
      AND (from_time IS NULL OR received_ms >= extract(epoch FROM from_time) * 1000)
      AND (until_time IS NULL OR received_ms < extract(epoch FROM until_time) * 1000)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS queued = ROW_COUNT;
    RETURN queued;
END $$;
