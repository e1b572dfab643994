-- What an environment's containers may use, and what each deployment was given of it. The defaults are those of
-- `limits.rs`; rows that were there before get them, too.

ALTER TABLE environment ADD COLUMN memory_bytes BIGINT NOT NULL DEFAULT 536870912;
ALTER TABLE environment ADD COLUMN cpus_milli   BIGINT NOT NULL DEFAULT 2000;
ALTER TABLE environment ADD COLUMN processes    BIGINT NOT NULL DEFAULT 512;

ALTER TABLE deployment ADD COLUMN memory_bytes BIGINT NOT NULL DEFAULT 536870912;
ALTER TABLE deployment ADD COLUMN cpus_milli   BIGINT NOT NULL DEFAULT 2000;
ALTER TABLE deployment ADD COLUMN processes    BIGINT NOT NULL DEFAULT 512;
