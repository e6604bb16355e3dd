-- NOT RUN HERE. The connector writes two columns: the record's place, headers and time, and its content.

CREATE DATABASE IF NOT EXISTS sluice;
CREATE SCHEMA IF NOT EXISTS sluice.raw;
CREATE SCHEMA IF NOT EXISTS sluice.curated;

CREATE TABLE IF NOT EXISTS sluice.raw.raw_events (
    record_metadata VARIANT,
    record_content  VARIANT
) DATA_RETENTION_TIME_IN_DAYS = 7;

-- The loader adds rows and cannot change or remove any.
CREATE ROLE IF NOT EXISTS sluice_loader;
GRANT USAGE ON DATABASE sluice TO ROLE sluice_loader;
GRANT USAGE ON SCHEMA sluice.raw TO ROLE sluice_loader;
GRANT INSERT, SELECT ON TABLE sluice.raw.raw_events TO ROLE sluice_loader;
GRANT CREATE PIPE ON SCHEMA sluice.raw TO ROLE sluice_loader;

CREATE ROLE IF NOT EXISTS sluice_merger;
GRANT USAGE ON DATABASE sluice TO ROLE sluice_merger;
GRANT USAGE ON ALL SCHEMAS IN DATABASE sluice TO ROLE sluice_merger;
GRANT SELECT ON TABLE sluice.raw.raw_events TO ROLE sluice_merger;
GRANT CREATE TABLE, CREATE STREAM, CREATE TASK, CREATE DYNAMIC TABLE ON SCHEMA sluice.curated TO ROLE sluice_merger;
GRANT EXECUTE TASK ON ACCOUNT TO ROLE sluice_merger;
