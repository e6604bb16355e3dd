-- stage: between raw and curated. The queue says which raw rows are still to be merged; parsed has one row for each raw
-- row that was, with the fields that matter, or the reason why it is not an event.
--
-- A queue, not a watermark: transactions become visible in another order than their offsets or sequence numbers have,
-- and a watermark steps over the late one. A row of the queue is visible together with its raw row, or not at all.

CREATE SCHEMA stage;

CREATE TABLE stage.queue (
    topic     text     NOT NULL,
    part      integer  NOT NULL,
    off       bigint   NOT NULL,
    lane      smallint NOT NULL,            -- 0: live; 1: replay and backfill, taken when nothing live waits
    id        bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, part, off)
);
CREATE INDEX queue_order ON stage.queue (lane, id);
-- Rows come and go; the default would let it grow to a fifth of all that ever passed through.
ALTER TABLE stage.queue SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Rows that ON CONFLICT found already there are not in the transition table: only new ones are queued.
CREATE FUNCTION stage.enqueue_new() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO stage.queue (topic, part, off, lane)
    SELECT __connect_topic, __connect_partition, __connect_offset,
           coalesce(nullif(current_setting('warehouse.lane', true), '')::smallint, 0)
    FROM added
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER enqueue AFTER INSERT ON raw.events REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION stage.enqueue_new();

-- Ids belong to a source. Topics that are not named here are sources of their own.
CREATE TABLE stage.sources (
    topic  text PRIMARY KEY,
    source text NOT NULL
);

-- What an event's `type` (in lower case) means for money. Others are kept as 'other', and reported (quality: types-unknown).
CREATE TABLE stage.types (
    type text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('payment', 'refund', 'chargeback', 'other'))
);
INSERT INTO stage.types VALUES
    ('payment', 'payment'), ('payment.authorised', 'payment'), ('payment.authorized', 'payment'),
    ('auth', 'payment'), ('sale', 'payment'),
    ('refund', 'refund'), ('payment.refund', 'refund'), ('payment.refunded', 'refund'),
    ('chargeback', 'chargeback'), ('payment.chargeback', 'chargeback'), ('payment.charged_back', 'chargeback'),
    ('payment.captured', 'other'), ('capture', 'other');

CREATE TABLE stage.parsed (
    topic        text    NOT NULL,
    part         integer NOT NULL,
    off          bigint  NOT NULL,
    source       text    NOT NULL,
    received     timestamptz NOT NULL,      -- infinity: the record had no timestamp
    event_id     text,
    type         text,
    kind         text,
    account_id   text,
    card_id      text,
    amount       numeric,
    currency     text,
    event_ts     timestamptz,
    payment_id   text,                      -- of a payment its own, of a refund or chargeback its payment's
    fingerprint  bytea,                     -- SHA-256 of the JSON's value: whitespace and the order of keys do not count
    business_key bytea,                     -- SHA-256 of (kind, account_id, card_id, amount, event_ts); NULL: one is missing
    reason       text,                      -- why it is no event; NULL: it is one
    PRIMARY KEY (topic, part, off)
);
CREATE INDEX parsed_id ON stage.parsed (source, event_id) WHERE reason IS NULL;

-- The JSON of a record, or why there is none. Damage must not stop the merge: whatever the data is to blame for becomes
-- a reason; anything else (no memory, no disk) is an error and rolls the batch back.
CREATE FUNCTION stage.json_of(bytes bytea, OUT doc jsonb, OUT reason text) LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF bytes IS NULL THEN
        reason := 'no-value';
        RETURN;
    END IF;
    doc := convert_from(bytes, 'UTF8')::jsonb;
    IF jsonb_typeof(doc) <> 'object' THEN
        reason := 'not-an-object';
        doc := NULL;
    END IF;
EXCEPTION
    WHEN character_not_in_repertoire THEN reason := 'not-utf8';
    WHEN untranslatable_character THEN reason := 'nul-in-string';   -- valid JSON that PostgreSQL cannot hold
    WHEN invalid_text_representation THEN reason := 'not-json';
    WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN reason := 'unreadable';
END $$;

-- RFC 3339, a space for the T, no zone for UTC, or a number: seconds since 1970, milliseconds when it is that large.
-- NULL for what is none of these.
CREATE FUNCTION stage.time_of(literal text, json_type text) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF json_type = 'number' THEN
        RETURN to_timestamp(CASE WHEN abs(literal::numeric) >= 1e11 THEN literal::numeric / 1000 ELSE literal::numeric END);
    ELSIF literal ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)$' THEN
        RETURN literal::timestamptz;
    ELSIF literal ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?$' THEN
        RETURN (literal || 'Z')::timestamptz;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN RETURN NULL;
END $$;

-- Bytes as text; what is no UTF-8 text (a NUL counts as that) with escapes, so that different bytes stay different.
CREATE FUNCTION stage.text_of(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN data_exception THEN RETURN encode(bytes, 'escape');
END $$;

-- The one place that knows the names of fields. NULL text for what is absent, JSON null included.
CREATE FUNCTION stage.read(doc jsonb, damage text, header_id bytea, error bytea) RETURNS stage.parsed
LANGUAGE plpgsql STABLE AS $$
DECLARE
    r stage.parsed;
    amount text := doc ->> 'amount';
    at text := doc ->> 'event_ts';
BEGIN
    -- The gateway's own id comes first: it may be a header's or joined of several fields.
    r.event_id := coalesce(nullif(stage.text_of(header_id), ''), doc ->> 'event_id', doc ->> 'id');
    IF r.event_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        r.event_id := lower(r.event_id);
    END IF;
    r.type := coalesce(doc ->> 'type', doc ->> 'event_type');
    r.kind := coalesce((SELECT t.kind FROM stage.types t WHERE t.type = lower(r.type)), 'other');
    r.account_id := doc ->> 'account_id';
    r.card_id := doc ->> 'card_id';
    r.currency := doc ->> 'currency';
    IF amount ~ '^-?\d{1,18}(\.\d{1,30})?$' AND jsonb_typeof(doc -> 'amount') IN ('number', 'string') THEN
        r.amount := trim_scale(amount::numeric);
    END IF;
    IF at IS NOT NULL THEN
        r.event_ts := stage.time_of(at, jsonb_typeof(doc -> 'event_ts'));
    END IF;
    r.payment_id := coalesce(doc ->> 'payment_id', doc ->> 'original_event_id',
                             CASE r.kind WHEN 'payment' THEN r.event_id END);
    r.fingerprint := sha256(convert_to(doc::text, 'UTF8'));
    IF r.account_id IS NOT NULL AND r.card_id IS NOT NULL AND r.amount IS NOT NULL AND r.event_ts IS NOT NULL THEN
        r.business_key := sha256(convert_to(jsonb_build_array(r.kind, r.account_id, r.card_id, r.amount,
                                                              extract(epoch FROM r.event_ts))::text, 'UTF8'));
    END IF;
    r.reason := CASE
        WHEN error IS NOT NULL THEN 'gateway: ' || left(stage.text_of(error), 200)
        WHEN damage IS NOT NULL THEN damage
        WHEN r.event_id IS NULL OR r.event_id = '' THEN 'no-event-id'
        WHEN amount IS NOT NULL AND r.amount IS NULL THEN 'bad-amount'
        WHEN at IS NOT NULL AND r.event_ts IS NULL THEN 'bad-event-ts'
        WHEN r.kind <> 'other' AND r.amount IS NULL THEN 'no-amount'
        WHEN r.kind <> 'other' AND r.account_id IS NULL THEN 'no-account-id'
        WHEN r.kind IN ('refund', 'chargeback') AND r.payment_id IS NULL THEN 'no-payment-id'
    END;
    RETURN r;
END $$;

-- For people: the same rows with short names and readable times. Bytes that are no UTF-8 stay bytes.
CREATE VIEW raw.readable AS
SELECT __connect_topic AS topic, __connect_partition AS part, __connect_offset AS off,
       to_timestamp(received_ms / 1000.0) AS received, loaded_at,
       stage.text_of(sluice_stream) AS sluice_stream, stage.text_of(sluice_seq) AS sluice_seq,
       stage.text_of(event_id) AS event_id, stage.text_of(sluice_error) AS sluice_error, event
FROM raw.events;
