-- NOT RUN HERE. Raw into curated: a stream of what is new, and a task that merges it; the rules are those of ../sql.

CREATE TABLE IF NOT EXISTS sluice.curated.events (
    source      STRING        NOT NULL,
    event_id    STRING        NOT NULL,
    type        STRING,
    account_id  STRING,
    card_id     STRING,
    amount      NUMBER(38, 6),
    currency    STRING,
    event_ts    TIMESTAMP_TZ,
    payment_id  STRING,
    received    TIMESTAMP_NTZ NOT NULL,
    part        NUMBER        NOT NULL,
    off         NUMBER        NOT NULL,
    payload     VARIANT       NOT NULL,
    merged_at   TIMESTAMP_NTZ NOT NULL,
    PRIMARY KEY (source, event_id)          -- not enforced by Snowflake: the MERGE keeps it, the check below watches it
);

CREATE TABLE IF NOT EXISTS sluice.curated.quarantine (
    source   STRING, event_id STRING, received TIMESTAMP_NTZ, part NUMBER, off NUMBER, reason STRING, content VARIANT
);

CREATE STREAM IF NOT EXISTS sluice.curated.raw_new ON TABLE sluice.raw.raw_events APPEND_ONLY = TRUE;

CREATE OR REPLACE VIEW sluice.curated.read_new AS
SELECT record_metadata:topic::STRING AS source,
       COALESCE(record_metadata:headers:event_id::STRING, record_content:event_id::STRING) AS event_id,
       COALESCE(record_content:type, record_content:event_type)::STRING AS type,
       record_content:account_id::STRING AS account_id,
       record_content:card_id::STRING AS card_id,
       TRY_TO_DECIMAL(record_content:amount::STRING, 38, 6) AS amount,
       record_content:currency::STRING AS currency,
       TRY_TO_TIMESTAMP_TZ(record_content:event_ts::STRING) AS event_ts,
       COALESCE(record_content:payment_id, record_content:original_event_id)::STRING AS payment_id,
       TO_TIMESTAMP_NTZ(record_metadata:CreateTime::NUMBER, 3) AS received,
       record_metadata:partition::NUMBER AS part,
       record_metadata:offset::NUMBER AS off,
       record_content AS payload,
       CASE WHEN event_id IS NULL THEN 'no-event-id'
            WHEN record_content:amount IS NOT NULL AND amount IS NULL THEN 'bad-amount'
            WHEN record_content:event_ts IS NOT NULL AND event_ts IS NULL THEN 'bad-event-ts' END AS reason
FROM sluice.curated.raw_new;

-- One transaction reads the stream once and writes both tables; the stream moves on when it commits.
CREATE OR REPLACE TASK sluice.curated.merge_raw
    SCHEDULE = '1 MINUTE'
    WHEN SYSTEM$STREAM_HAS_DATA('sluice.curated.raw_new')
AS
BEGIN
    BEGIN TRANSACTION;
    CREATE OR REPLACE TEMPORARY TABLE sluice.curated.batch AS SELECT * FROM sluice.curated.read_new;
    MERGE INTO sluice.curated.events e USING (
        SELECT * FROM sluice.curated.batch WHERE reason IS NULL
        QUALIFY ROW_NUMBER() OVER (PARTITION BY source, event_id ORDER BY received, part, off) = 1
    ) n ON e.source = n.source AND e.event_id = n.event_id
    WHEN MATCHED AND (n.received, n.part, n.off) < (e.received, e.part, e.off) THEN UPDATE SET
        type = n.type, account_id = n.account_id, card_id = n.card_id, amount = n.amount, currency = n.currency,
        event_ts = n.event_ts, payment_id = n.payment_id, received = n.received, part = n.part, off = n.off,
        payload = n.payload
    WHEN NOT MATCHED THEN INSERT VALUES (n.source, n.event_id, n.type, n.account_id, n.card_id, n.amount, n.currency,
        n.event_ts, n.payment_id, n.received, n.part, n.off, n.payload, SYSDATE());
    INSERT INTO sluice.curated.quarantine
    SELECT source, event_id, received, part, off, reason, payload FROM sluice.curated.batch WHERE reason IS NOT NULL;
    COMMIT;
END;
ALTER TASK sluice.curated.merge_raw RESUME;

-- The declarative variant: Snowflake keeps it fresh by itself, and reads raw in full when it must.
CREATE OR REPLACE DYNAMIC TABLE sluice.curated.events_dynamic TARGET_LAG = '1 minute' WAREHOUSE = sluice_wh AS
SELECT record_metadata:topic::STRING AS source,
       COALESCE(record_metadata:headers:event_id::STRING, record_content:event_id::STRING) AS event_id,
       TO_TIMESTAMP_NTZ(record_metadata:CreateTime::NUMBER, 3) AS received,
       record_content AS payload
FROM sluice.raw.raw_events
WHERE event_id IS NOT NULL
QUALIFY ROW_NUMBER() OVER (PARTITION BY source, event_id
    ORDER BY received, record_metadata:partition::NUMBER, record_metadata:offset::NUMBER) = 1;

-- What Snowflake does not enforce. Must be empty.
SELECT source, event_id, COUNT(*) FROM sluice.curated.events GROUP BY 1, 2 HAVING COUNT(*) > 1;
