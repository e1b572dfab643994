-- Portable between SQLite and PostgreSQL: ids are TEXT, times BIGINT (unix milliseconds), lists and maps JSON in TEXT.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE organisation (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    max_apps   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT organisation_name UNIQUE (name)
);

CREATE TABLE app (
    id              TEXT   NOT NULL PRIMARY KEY,
    organisation_id TEXT   NOT NULL REFERENCES organisation (id),
    name            TEXT   NOT NULL,
    branch          TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    CONSTRAINT app_name UNIQUE (name)
);

CREATE TABLE environment (
    id              TEXT   NOT NULL PRIMARY KEY,
    organisation_id TEXT   NOT NULL REFERENCES organisation (id),
    app_id          TEXT   NOT NULL REFERENCES app (id),
    name            TEXT   NOT NULL,
    -- Intent.
    secret_key      TEXT   NOT NULL,
    variables       TEXT   NOT NULL,
    sleep_after_ms  BIGINT,
    ready_within_ms BIGINT NOT NULL,
    asked           TEXT,
    serving_id      TEXT,
    -- Observed, and what edges were told of it.
    state           TEXT   NOT NULL,
    state_since     BIGINT NOT NULL,
    epoch           BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    reason          TEXT,
    failures        BIGINT NOT NULL,
    retry_at        BIGINT NOT NULL,
    last_active_at  BIGINT,
    -- The head of the branch that the newest deployment was made for.
    seen_commit     TEXT,
    CONSTRAINT environment_name UNIQUE (app_id, name)
);

CREATE TABLE host (
    host           TEXT   NOT NULL PRIMARY KEY,
    environment_id TEXT   NOT NULL REFERENCES environment (id),
    certified_at   BIGINT NOT NULL
);

CREATE TABLE build (
    id         TEXT   NOT NULL PRIMARY KEY,
    app_id     TEXT   NOT NULL REFERENCES app (id),
    commit_id  TEXT   NOT NULL,
    state      TEXT   NOT NULL,
    image_id   TEXT,
    exposed    TEXT   NOT NULL,
    image_port TEXT,
    reason     TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at   BIGINT
);
CREATE INDEX build_commit ON build (app_id, commit_id);

CREATE TABLE deployment (
    id             TEXT   NOT NULL PRIMARY KEY,
    environment_id TEXT   NOT NULL REFERENCES environment (id),
    number         BIGINT NOT NULL,
    commit_id      TEXT   NOT NULL,
    build_id       TEXT,
    state          TEXT   NOT NULL,
    reason         TEXT,
    last_lines     TEXT   NOT NULL,
    variables      TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    ended_at       BIGINT,
    CONSTRAINT deployment_number UNIQUE (environment_id, number)
);

CREATE TABLE instance (
    id                 TEXT   NOT NULL PRIMARY KEY,
    environment_id     TEXT   NOT NULL REFERENCES environment (id),
    deployment_id      TEXT   NOT NULL REFERENCES deployment (id),
    address            TEXT   NOT NULL,
    port               BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    -- Set when a newer deployment took its place: the generation that no longer offers it.
    retired_generation BIGINT,
    retired_at         BIGINT,
    CONSTRAINT instance_address UNIQUE (address)
);

-- Who had an address last. It goes to another environment only when every edge has a table without it.
CREATE TABLE address (
    address          TEXT   NOT NULL PRIMARY KEY,
    environment_id   TEXT   NOT NULL,
    freed_at         BIGINT NOT NULL,
    freed_generation BIGINT NOT NULL
);

-- The table that edges serve, as a log with one row an object; a removed object stays as a row without body.
CREATE TABLE object (
    kind            TEXT   NOT NULL,
    id              TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    generation      BIGINT NOT NULL,
    body            TEXT,
    CONSTRAINT object_id PRIMARY KEY (kind, id)
);
CREATE INDEX object_generation ON object (generation);
