-- curated: what analysts read. Each raw row that was merged is in exactly one of events, duplicates and quarantine.

CREATE SCHEMA curated;

-- One row an event id. Of several records with the id the first received is the event, whatever order they came here in.
CREATE TABLE curated.events (
    source       text    NOT NULL,
    event_id     text    NOT NULL,
    kind         text    NOT NULL,
    type         text,
    account_id   text,
    card_id      text,
    amount       numeric,
    currency     text,
    event_ts     timestamptz,
    received     timestamptz NOT NULL,
    payment_id   text,
    business_key bytea,
    duplicate_of text,                      -- the first event of this source with the same business key; NULL: it is the first
    payload      jsonb   NOT NULL,
    topic        text    NOT NULL,
    part         integer NOT NULL,
    off          bigint  NOT NULL,
    merged_at    timestamptz NOT NULL,      -- when the id first came here
    changed_at   timestamptz NOT NULL,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX events_record ON curated.events (topic, part, off);
CREATE INDEX events_payment ON curated.events (source, payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX events_business_key ON curated.events (source, business_key) WHERE business_key IS NOT NULL;
CREATE INDEX events_merged_at ON curated.events USING brin (merged_at);

-- Further records with the id and the same content.
CREATE TABLE curated.duplicates (
    topic    text    NOT NULL,
    part     integer NOT NULL,
    off      bigint  NOT NULL,
    source   text    NOT NULL,
    event_id text    NOT NULL,
    received timestamptz NOT NULL,
    PRIMARY KEY (topic, part, off)
);
CREATE INDEX duplicates_id ON curated.duplicates (source, event_id);

-- Records that are no event, and records with a known id and other content ('id-conflict'). Raw has their bytes.
CREATE TABLE curated.quarantine (
    topic    text    NOT NULL,
    part     integer NOT NULL,
    off      bigint  NOT NULL,
    source   text    NOT NULL,
    event_id text,
    received timestamptz NOT NULL,
    reason   text    NOT NULL,
    since    timestamptz NOT NULL,
    PRIMARY KEY (topic, part, off)
);
CREATE INDEX quarantine_id ON curated.quarantine (source, event_id) WHERE reason = 'id-conflict';

-- The state of each payment. Refunds and chargebacks may be here first: they wait in curated.orphans. Events that are
-- flagged as business duplicates move no money; `flagged` counts them.
CREATE TABLE curated.payments (
    source       text    NOT NULL,
    payment_id   text    NOT NULL,
    event_id     text    NOT NULL,
    account_id   text,
    card_id      text,
    amount       numeric NOT NULL,
    currency     text,
    event_ts     timestamptz,
    duplicate_of text,
    refunds      integer NOT NULL,
    refunded     numeric NOT NULL,
    chargebacks  integer NOT NULL,
    charged_back numeric NOT NULL,
    flagged      integer NOT NULL,
    net          numeric NOT NULL,
    state        text    NOT NULL,
    changed_at   timestamptz NOT NULL,
    PRIMARY KEY (source, payment_id)
);

CREATE VIEW curated.orphans AS
SELECT e.source, e.event_id, e.kind, e.payment_id, e.account_id, e.amount, e.currency, e.event_ts, e.received
FROM curated.events e
WHERE e.kind IN ('refund', 'chargeback')
  AND NOT EXISTS (SELECT FROM curated.payments p WHERE p.source = e.source AND p.payment_id = e.payment_id);

-- By the day of the event, not of its arrival: a day changes as long as late events come in.
CREATE VIEW curated.daily AS
SELECT source, (event_ts AT TIME ZONE 'UTC')::date AS day, kind, currency, count(*) AS events, sum(amount) AS amount,
       count(*) FILTER (WHERE received - event_ts > interval '1 hour') AS late
FROM curated.events
WHERE duplicate_of IS NULL
GROUP BY 1, 2, 3, 4;
