-- quality: what must hold, as SQL. Each check yields one number: how bad it is. Its gate says from where on that fails,
-- and what a failure, or a number that could not be had, means:
--   closed  the run fails: exit 1, and curated.released_events stays where the last good run left it
--   open    it is reported, and the data goes on

CREATE SCHEMA quality;

CREATE TABLE quality.gates (
    check_name text PRIMARY KEY,
    about      text    NOT NULL,
    unit       text    NOT NULL,
    mode       text    NOT NULL CHECK (mode IN ('open', 'closed')),
    limit_is   numeric NOT NULL            -- the most that is good
);
INSERT INTO quality.gates VALUES
    ('freshness-queue', 'age of the oldest live record that waits for the merge', 's', 'closed', 120),
    ('freshness-curated', 'p95 from receipt to curated, of what came in the window', 's', 'open', 120),
    ('completeness-kafka-raw', 'records in Kafka, older than the grace, that raw lacks', 'records', 'closed', 0),
    ('completeness-raw-kafka', 'records in raw that Kafka does not have where it should', 'records', 'closed', 0),
    ('completeness-gateway', 'events that the gateways accepted beyond what is pending or in Kafka', 'events', 'open', 0),
    ('completeness-curated', 'raw records that are not in exactly one place: queue, events, duplicates, quarantine',
     'records', 'closed', 0),
    ('completeness-streams', 'seqs missing inside the streams of the gateways', 'seqs', 'open', 0),
    ('unique-stream-seq', 'seqs of a stream that are in raw more than once', 'seqs', 'closed', 0),
    ('unique-event-id', 'event ids that are in curated.events more than once', 'ids', 'closed', 0),
    ('duplicates-id', 'further copies of ids, of all records in the window', '%', 'open', 5),
    ('duplicates-business', 'events flagged by their business key, of all in the window', '%', 'open', 5),
    ('nulls', 'the largest rise of a field''s share of nulls over the week before', '%', 'open', 5),
    ('references-orphans', 'refunds and chargebacks without their payment for over a day', 'events', 'open', 0),
    ('references-account', 'refunds and chargebacks of another account than their payment''s', 'events', 'open', 0),
    ('references-overdrawn', 'payments of which more came back than was paid', 'payments', 'open', 0),
    ('payments-shared', 'payments under a payment_id that another payment has', 'events', 'open', 0),
    ('state-payments', 'payments whose row differs from what their events say', 'payments', 'closed', 0),
    ('quarantine-share', 'records in quarantine, of all in the window', '%', 'closed', 5),
    ('quarantine-conflicts', 'records with a known id and other content', 'records', 'open', 0),
    ('drift-fields', 'fields, or types of fields, that nobody announced', 'fields', 'open', 0),
    ('types-unknown', 'types of events that stage.types does not know', 'types', 'open', 0);

-- What the command saw outside of this database; replaced by each run. No row: it was not looked at, or could not be.
CREATE TABLE quality.gateway_counts (
    name  text PRIMARY KEY,                -- accepted, pending
    value numeric NOT NULL
);
CREATE TABLE quality.kafka_ranges (        -- the offsets that were read, and how many records were in them
    topic text NOT NULL, part integer NOT NULL, from_off bigint NOT NULL, until_off bigint NOT NULL,
    records bigint NOT NULL, whole boolean NOT NULL,    -- whole: from the first record of the topic that was ever written
    PRIMARY KEY (topic, part)
);
CREATE UNLOGGED TABLE quality.kafka_records (
    topic text NOT NULL, part integer NOT NULL, off bigint NOT NULL, received_ms bigint NOT NULL,
    PRIMARY KEY (topic, part, off)
);

-- Fields seen so far, as paths of at most two names, with their JSON types. Maintained by the merge.
CREATE TABLE quality.fields (
    source text NOT NULL, path text NOT NULL, json_type text NOT NULL,
    first_received timestamptz NOT NULL, last_received timestamptz NOT NULL,
    announced boolean NOT NULL DEFAULT false,
    PRIMARY KEY (source, path, json_type)
);

CREATE FUNCTION quality.note_fields() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO quality.fields AS known (source, path, json_type, first_received, last_received)
    SELECT f.source, p.path, p.json_type, min(f.received), max(f.received)
    FROM work_fresh f
    CROSS JOIN LATERAL (
        SELECT a.key AS path, jsonb_typeof(a.value) AS json_type FROM jsonb_each(f.payload) a
        UNION ALL
        SELECT a.key || '.' || b.key, jsonb_typeof(b.value)
        FROM jsonb_each(f.payload) a, jsonb_each(CASE jsonb_typeof(a.value) WHEN 'object' THEN a.value END) b
    ) p
    WHERE f.reason IS NULL AND f.payload IS NOT NULL
    GROUP BY 1, 2, 3
    ON CONFLICT (source, path, json_type) DO UPDATE
        SET first_received = least(known.first_received, excluded.first_received),
            last_received = greatest(known.last_received, excluded.last_received)
        WHERE known.first_received > excluded.first_received OR known.last_received < excluded.last_received;
END $$;

-- Null is a value that any field may take; the check `nulls` watches how often.
CREATE VIEW quality.drift AS
SELECT source, path, json_type, first_received, last_received,
       EXISTS (SELECT FROM quality.fields k WHERE k.source = f.source AND k.path = f.path AND k.announced
               AND k.json_type <> 'null') AS path_is_known
FROM quality.fields f WHERE NOT announced AND json_type <> 'null';

-- The window of the checks that look at rates.
CREATE FUNCTION quality.since() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT now() - coalesce(nullif(current_setting('warehouse.window', true), '')::interval, interval '1 hour')
$$;

CREATE FUNCTION quality.percent(part bigint, whole bigint) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN whole > 0 THEN round(100.0 * part / whole, 2) ELSE 0 END
$$;

CREATE VIEW quality.null_shares AS
SELECT field, round(100.0 * count(*) FILTER (WHERE recent AND missing) / nullif(count(*) FILTER (WHERE recent), 0), 2) AS now_is,
       round(100.0 * count(*) FILTER (WHERE NOT recent AND missing) / nullif(count(*) FILTER (WHERE NOT recent), 0), 2) AS was
FROM (
    SELECT merged_at >= quality.since() AS recent, f.field, f.missing
    FROM curated.events,
    LATERAL (VALUES ('type', type IS NULL), ('account_id', account_id IS NULL), ('card_id', card_id IS NULL),
                    ('amount', amount IS NULL), ('currency', currency IS NULL), ('event_ts', event_ts IS NULL)) f (field, missing)
    WHERE merged_at >= quality.since() - interval '7 days' AND kind <> 'other'
) rows GROUP BY field;

-- In how many places each raw record is. A record that waits for its second reading is in curated and in lane 1.
CREATE VIEW quality.misplaced AS
SELECT __connect_topic AS topic, __connect_partition AS part, __connect_offset AS off,
       (q.lane IS NOT NULL AND q.lane = 0)::integer + (e.off IS NOT NULL)::integer + (d.off IS NOT NULL)::integer
       + (x.off IS NOT NULL)::integer AS places
FROM raw.events r
LEFT JOIN stage.queue q ON q.topic = __connect_topic AND q.part = __connect_partition AND q.off = __connect_offset
LEFT JOIN curated.events e ON e.topic = __connect_topic AND e.part = __connect_partition AND e.off = __connect_offset
LEFT JOIN curated.duplicates d ON d.topic = __connect_topic AND d.part = __connect_partition AND d.off = __connect_offset
LEFT JOIN curated.quarantine x ON x.topic = __connect_topic AND x.part = __connect_partition AND x.off = __connect_offset
WHERE CASE WHEN q.lane = 1 AND e.off IS NULL AND d.off IS NULL AND x.off IS NULL THEN false
           ELSE (q.lane IS NOT NULL AND q.lane = 0)::integer + (e.off IS NOT NULL)::integer
                + (d.off IS NOT NULL)::integer + (x.off IS NOT NULL)::integer <> 1 END;

-- Offsets of Kafka that were read, against raw. What came in within the grace may still be on its way.
CREATE VIEW quality.missing_in_raw AS
SELECT k.topic, k.part, k.off, to_timestamp(k.received_ms / 1000.0) AS received
FROM quality.kafka_records k
WHERE k.received_ms < extract(epoch FROM now()
          - coalesce(nullif(current_setting('warehouse.grace', true), '')::interval, interval '60 seconds')) * 1000
  AND NOT EXISTS (SELECT FROM raw.events r WHERE r.__connect_topic = k.topic AND r.__connect_partition = k.part
                  AND r.__connect_offset = k.off);
CREATE VIEW quality.missing_in_kafka AS
SELECT r.__connect_topic AS topic, r.__connect_partition AS part, r.__connect_offset AS off
FROM quality.kafka_ranges g
JOIN raw.events r ON r.__connect_topic = g.topic AND r.__connect_partition = g.part
                 AND r.__connect_offset >= g.from_off AND r.__connect_offset < g.until_off
WHERE NOT EXISTS (SELECT FROM quality.kafka_records k WHERE k.topic = g.topic AND k.part = g.part
                  AND k.off = r.__connect_offset);

-- Gaps are between a stream's first and last seq in raw; all topics of its node must be landed for this to mean loss.
CREATE VIEW quality.streams AS
SELECT stage.text_of(sluice_stream) AS stream, count(seq) AS records, count(DISTINCT seq) AS seqs,
       max(seq) - min(seq) + 1 - count(DISTINCT seq) AS gaps
FROM (SELECT sluice_stream, CASE WHEN encode(sluice_seq, 'escape') ~ '^\d{1,18}$'
                                 THEN encode(sluice_seq, 'escape')::bigint END AS seq
      FROM raw.events WHERE sluice_stream IS NOT NULL) s
GROUP BY sluice_stream;
