-- Who may do what. The roles belong to the whole server and may be there already.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['warehouse_loader', 'warehouse_merger', 'warehouse_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA raw, stage, curated, quality FROM PUBLIC;

-- The sink: adds rows. UPDATE is what PostgreSQL asks for ON CONFLICT DO UPDATE; the trigger lets nothing of it through.
GRANT USAGE ON SCHEMA raw TO warehouse_loader;
GRANT SELECT, INSERT, UPDATE ON raw.events TO warehouse_loader;

-- The merge and the checks: read raw, own curated.
GRANT USAGE ON SCHEMA raw, stage, curated, quality TO warehouse_merger;
GRANT SELECT ON ALL TABLES IN SCHEMA raw TO warehouse_merger;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA stage, curated, quality TO warehouse_merger;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON quality.gates, stage.types, stage.sources FROM warehouse_merger;

GRANT USAGE ON SCHEMA raw, curated, quality, stage TO warehouse_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA raw, curated, quality TO warehouse_reader;
