-- The checks: a number and a word of detail each, the gates applied to them, and what a run leaves behind.

CREATE VIEW quality.freshness AS
SELECT 'freshness-queue' AS check_name,
       coalesce(round(extract(epoch FROM now() - min(queued_at)), 1), 0) AS value,
       count(*) || ' wait' AS detail
FROM stage.queue WHERE lane = 0
UNION ALL
SELECT 'freshness-curated',
       round((percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM merged_at - received)))::numeric, 1),
       count(*) || ' events in the window'
FROM curated.events WHERE merged_at >= quality.since() AND received <> 'infinity';

CREATE VIEW quality.completeness AS
SELECT 'completeness-kafka-raw' AS check_name,
       (SELECT count(*) FROM quality.missing_in_raw)::numeric + CASE WHEN count(*) = 0 THEN NULL ELSE 0 END AS value,
       coalesce(sum(records), 0) || ' records read from ' || count(*) || ' partitions' AS detail
FROM quality.kafka_ranges
UNION ALL
SELECT 'completeness-raw-kafka',
       (SELECT count(*) FROM quality.missing_in_kafka)::numeric + CASE WHEN count(*) = 0 THEN NULL ELSE 0 END,
       (SELECT coalesce(min(format('first: %s [%s] @%s', topic, part, off)), '') FROM quality.missing_in_kafka)
FROM quality.kafka_ranges
UNION ALL
-- One-sided, so that it holds over restarts of gateways, whose counters begin anew.
SELECT 'completeness-gateway', greatest(0, max(value) FILTER (WHERE name = 'accepted')
           - max(value) FILTER (WHERE name = 'pending')
           - (SELECT CASE WHEN bool_and(whole) THEN sum(records) END FROM quality.kafka_ranges)),
       format('accepted %s, pending %s, in Kafka %s', max(value) FILTER (WHERE name = 'accepted'),
              max(value) FILTER (WHERE name = 'pending'), (SELECT sum(records) FROM quality.kafka_ranges))
FROM quality.gateway_counts HAVING count(*) > 0
UNION ALL
SELECT 'completeness-curated', count(*),
       (SELECT count(*) FROM raw.events) || ' raw = ' || (SELECT count(*) FROM curated.events) || ' events + '
       || (SELECT count(*) FROM curated.duplicates) || ' duplicates + ' || (SELECT count(*) FROM curated.quarantine)
       || ' in quarantine + ' || (SELECT count(*) FROM stage.queue WHERE lane = 0) || ' waiting'
FROM quality.misplaced
UNION ALL
SELECT 'completeness-streams', coalesce(sum(gaps), 0), count(*) || ' streams' FROM quality.streams;

CREATE VIEW quality.uniqueness AS
SELECT 'unique-stream-seq' AS check_name, coalesce(sum(records - seqs), 0)::numeric AS value,
       coalesce(string_agg(stream, ' ') FILTER (WHERE records > seqs), '') AS detail
FROM quality.streams
UNION ALL
SELECT 'unique-event-id', count(*), coalesce(min(event_id), '')
FROM (SELECT source, event_id FROM curated.events GROUP BY 1, 2 HAVING count(*) > 1) twice
UNION ALL
SELECT 'duplicates-id', quality.percent(count(d.off), count(*)), count(d.off) || ' of ' || count(*)
FROM raw.events r LEFT JOIN curated.duplicates d
     ON d.topic = r.__connect_topic AND d.part = r.__connect_partition AND d.off = r.__connect_offset
WHERE r.loaded_at >= quality.since()
UNION ALL
SELECT 'duplicates-business', quality.percent(count(duplicate_of), count(*)), count(duplicate_of) || ' of ' || count(*)
FROM curated.events WHERE merged_at >= quality.since();

CREATE VIEW quality.content AS
SELECT 'nulls' AS check_name, coalesce(max(greatest(0, now_is - was)), 0)::numeric AS value,
       coalesce(string_agg(format('%s %s%% (was %s%%)', field, now_is, was), ', ' ORDER BY field)
                FILTER (WHERE now_is > was), '') AS detail
FROM quality.null_shares
UNION ALL
SELECT 'quarantine-share', quality.percent(count(q.off), count(*)),
       coalesce((SELECT string_agg(reason || ' ' || n, ', ' ORDER BY n DESC)
                 FROM (SELECT reason, count(*) AS n FROM curated.quarantine GROUP BY 1 ORDER BY 2 DESC LIMIT 5) top), '')
FROM raw.events r LEFT JOIN curated.quarantine q
     ON q.topic = r.__connect_topic AND q.part = r.__connect_partition AND q.off = r.__connect_offset
WHERE r.loaded_at >= quality.since()
UNION ALL
SELECT 'quarantine-conflicts', count(*), coalesce(min(event_id), '') FROM curated.quarantine WHERE reason = 'id-conflict'
UNION ALL
SELECT 'drift-fields', count(*),
       coalesce(string_agg(format('%s %s', path, json_type), ', ' ORDER BY path_is_known DESC, path), '')
FROM quality.drift
UNION ALL
SELECT 'types-unknown', count(*), coalesce(string_agg(type, ', '), '')
FROM (SELECT DISTINCT coalesce(e.type, '(none)') AS type FROM curated.events e
      WHERE e.kind = 'other' AND NOT EXISTS (SELECT FROM stage.types t WHERE t.type = lower(e.type))) unknown;

CREATE VIEW quality.referential AS
SELECT 'references-orphans' AS check_name, count(*)::numeric AS value, coalesce('oldest: ' || min(event_id), '') AS detail
FROM curated.orphans WHERE received < now() - interval '1 day'
UNION ALL
SELECT 'references-account', count(*), coalesce(min(e.event_id), '')
FROM curated.events e JOIN curated.payments p USING (source, payment_id)
WHERE e.kind IN ('refund', 'chargeback') AND e.account_id IS DISTINCT FROM p.account_id
UNION ALL
SELECT 'references-overdrawn', count(*), coalesce(min(payment_id), '') FROM curated.payments WHERE net < 0
UNION ALL
SELECT 'payments-shared', count(*), coalesce(min(e.payment_id), '')
FROM curated.events e JOIN curated.payments p USING (source, payment_id)
WHERE e.kind = 'payment' AND e.event_id <> p.event_id AND e.duplicate_of IS NULL
UNION ALL
SELECT 'state-payments', count(*), coalesce(min(payment_id), '')
FROM (SELECT source, payment_id, event_id, account_id, card_id, amount, currency, event_ts, duplicate_of, refunds, refunded,
             chargebacks, charged_back, flagged, net, state FROM curated.payments) have
NATURAL FULL JOIN (SELECT source, payment_id FROM curated.payment_states) ids
WHERE NOT EXISTS (SELECT FROM curated.payment_states want
                  WHERE want.source = have.source AND want.payment_id = have.payment_id AND want IS NOT DISTINCT FROM have);

-- What must hold, what was found, and what follows. No value: unknown, which a closed gate takes for a failure.
CREATE VIEW quality.report AS
SELECT g.check_name, g.mode, g.limit_is, c.value, g.unit,
       CASE WHEN c.value IS NULL THEN 'unknown' WHEN c.value <= g.limit_is THEN 'ok' ELSE 'fail' END AS state,
       g.mode = 'closed' AND (c.value IS NULL OR c.value > g.limit_is) AS shut,
       coalesce(c.detail, '') AS detail, g.about
FROM quality.gates g
LEFT JOIN (SELECT * FROM quality.freshness UNION ALL SELECT * FROM quality.completeness
           UNION ALL SELECT * FROM quality.uniqueness UNION ALL SELECT * FROM quality.content
           UNION ALL SELECT * FROM quality.referential) c USING (check_name);

CREATE TABLE quality.runs (
    started_at timestamptz PRIMARY KEY,
    passed     boolean NOT NULL,
    report     jsonb   NOT NULL
);

-- Write, audit, publish: those who must not see what has not been checked read these.
CREATE FUNCTION quality.released_until() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(started_at), '-infinity') FROM quality.runs WHERE passed
$$;
CREATE VIEW curated.released_events AS SELECT * FROM curated.events WHERE merged_at <= quality.released_until();
