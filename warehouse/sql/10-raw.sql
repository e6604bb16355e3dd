-- raw: what Kafka holds, byte for byte, keyed by where it lies there. Rows are added, never changed, never taken away.
--
-- Everything is bytea: a text column would refuse a record with a NUL in an event id, and one refused record would hold
-- up its partition for good. The names of the key are those that Debezium's sink gives it (primary.key.mode=kafka).

CREATE SCHEMA raw;

CREATE TABLE raw.events (
    __connect_topic     text    NOT NULL,
    __connect_partition integer NOT NULL,
    __connect_offset    bigint  NOT NULL,
    event               bytea,              -- the value; NULL: a tombstone
    received_ms         bigint,             -- the record's timestamp: when the gateway received it, ms since 1970
    sluice_stream       bytea,              -- headers, as they came; NULL: the record had none
    sluice_seq          bytea,
    event_id            bytea,
    sluice_error        bytea,              -- of dead-letter topics: why the gateway put it there
    loaded_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (__connect_topic, __connect_partition, __connect_offset)
);
CREATE INDEX events_loaded_at ON raw.events USING brin (loaded_at);
CREATE INDEX events_sluice ON raw.events (sluice_stream, sluice_seq);

-- The sink writes INSERT ... ON CONFLICT DO UPDATE, since Kafka Connect delivers at least once. The same record again is
-- nothing; other bytes at a place that is taken mean that the topic was made anew under an old name. That stops the
-- sink: which of the two is the truth is for a person to say.
CREATE FUNCTION raw.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.__connect_topic, NEW.__connect_partition, NEW.__connect_offset, NEW.event, NEW.received_ms,
            NEW.sluice_stream, NEW.sluice_seq, NEW.event_id, NEW.sluice_error)
           IS NOT DISTINCT FROM
           (OLD.__connect_topic, OLD.__connect_partition, OLD.__connect_offset, OLD.event, OLD.received_ms,
            OLD.sluice_stream, OLD.sluice_seq, OLD.event_id, OLD.sluice_error) THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'raw.events is append only: % [%] @% is here already with other content',
            OLD.__connect_topic, OLD.__connect_partition, OLD.__connect_offset
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Was the topic deleted and made again?';
    END IF;
    RAISE EXCEPTION 'raw.events is append only: % refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON raw.events
    FOR EACH ROW EXECUTE FUNCTION raw.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON raw.events
    FOR EACH STATEMENT EXECUTE FUNCTION raw.refuse_change();
-- Restores and logical replication switch ordinary triggers off; these stay on.
ALTER TABLE raw.events ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE raw.events ENABLE ALWAYS TRIGGER append_only_whole;
