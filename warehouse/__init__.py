"""The warehouse behind Kafka: raw and curated tables in PostgreSQL, checks, replay. README.md tells how it is used."""
