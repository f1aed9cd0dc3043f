-- One schema for SQLite and PostgreSQL. Declared types are chosen so that both
-- read them alike: BIGINT, TEXT, BOOLEAN and BYTEA (which SQLite stores as
-- blobs). Times are nanoseconds since 1970 in UTC, 0 for "never"; JSON is TEXT.

-- +goose Up
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('harm', 0), ('finding', 0), ('record', 0), ('command', 0);

CREATE TABLE orgs (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE users (
    name     TEXT PRIMARY KEY,
    org      TEXT NOT NULL,
    role     TEXT NOT NULL,
    password TEXT NOT NULL, -- argon2id in PHC form, empty: cannot sign in by password
    created  BIGINT NOT NULL,
    disabled BOOLEAN NOT NULL
);

CREATE TABLE sessions (
    token   TEXT PRIMARY KEY, -- SHA-256 of the secret, hexadecimal
    name    TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX sessions_expires ON sessions (expires);

-- What programs show instead of a password. They outlive a change of it.
CREATE TABLE api_tokens (
    token   TEXT PRIMARY KEY, -- SHA-256 of the secret, hexadecimal
    name    TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE sign_ins (
    token   TEXT PRIMARY KEY,
    name    TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    expires BIGINT NOT NULL
);

CREATE TABLE enrolments (
    id        TEXT PRIMARY KEY,
    token     TEXT NOT NULL UNIQUE, -- SHA-256 of the secret, hexadecimal
    org       TEXT NOT NULL,
    role      TEXT NOT NULL,
    simulated BOOLEAN NOT NULL,
    uses      BIGINT NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    by_name   TEXT NOT NULL
);

CREATE TABLE hosts (
    id         TEXT PRIMARY KEY,
    org        TEXT NOT NULL,
    hostname   TEXT NOT NULL,
    stratum    TEXT NOT NULL,
    build      TEXT NOT NULL,
    attributes TEXT NOT NULL,
    report     TEXT NOT NULL,
    simulated  BOOLEAN NOT NULL,
    connected  BOOLEAN NOT NULL,
    revoked    BOOLEAN NOT NULL,
    no_canary  BOOLEAN NOT NULL,
    safe_mode  BOOLEAN NOT NULL,
    serial     TEXT NOT NULL,
    enrolled   BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL
);
CREATE INDEX hosts_org ON hosts (org, id);
CREATE INDEX hosts_build ON hosts (build);

CREATE TABLE builds (
    digest   TEXT PRIMARY KEY,
    version  TEXT NOT NULL,
    platform TEXT NOT NULL,
    manifest TEXT NOT NULL,
    created  BIGINT NOT NULL
);

CREATE TABLE bundles (
    digest  TEXT PRIMARY KEY,
    org     TEXT NOT NULL,
    channel TEXT NOT NULL,
    version TEXT NOT NULL,
    size    BIGINT NOT NULL,
    created BIGINT NOT NULL,
    by_name TEXT NOT NULL
);
CREATE INDEX bundles_channel ON bundles (channel, created);

-- The result of the static check of a bundle against one build's manifest.
CREATE TABLE checks (
    bundle   TEXT NOT NULL REFERENCES bundles (digest),
    build    TEXT NOT NULL,
    problems TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (bundle, build)
);

CREATE TABLE verdicts (
    bundle   TEXT PRIMARY KEY REFERENCES bundles (digest),
    envelope BYTEA NOT NULL, -- DSSE, as it was signed
    verdict  TEXT NOT NULL,
    passed   BOOLEAN NOT NULL,
    at       BIGINT NOT NULL
);

CREATE TABLE releases (
    id       TEXT PRIMARY KEY,
    org      TEXT NOT NULL,
    channel  TEXT NOT NULL,
    digest   TEXT NOT NULL REFERENCES bundles (digest),
    profile  TEXT NOT NULL,
    rings    TEXT NOT NULL,
    signed   BIGINT NOT NULL,
    created  BIGINT NOT NULL,
    by_name  TEXT NOT NULL,
    approved TEXT NOT NULL,
    note     TEXT NOT NULL
);
CREATE INDEX releases_created ON releases (created);

CREATE TABLE rollouts (
    release  TEXT PRIMARY KEY REFERENCES releases (id),
    version  BIGINT NOT NULL,
    phase    TEXT NOT NULL,
    done     BOOLEAN NOT NULL, -- nothing more to drive: complete, or recalled and every host back
    state    TEXT NOT NULL,
    policy   TEXT NOT NULL,
    baseline TEXT NOT NULL,
    updated  BIGINT NOT NULL
);

-- What people told a rollout, numbered in the order it takes them.
CREATE TABLE orders (
    seq     BIGINT PRIMARY KEY,
    release TEXT NOT NULL REFERENCES releases (id),
    kind    TEXT NOT NULL,
    by_name TEXT NOT NULL,
    at      BIGINT NOT NULL,
    command TEXT NOT NULL -- JSON, as package rollout takes it
);
CREATE INDEX orders_release ON orders (release, seq);

-- Cells of a block that hosts may be drawn in.
CREATE TABLE openings (
    release  TEXT NOT NULL REFERENCES releases (id),
    block    BIGINT NOT NULL,
    number   BIGINT NOT NULL, -- within the block
    until    BIGINT NOT NULL,
    opening  TEXT NOT NULL, -- JSON, as package fleet takes it
    PRIMARY KEY (release, block, number)
);

CREATE TABLE admissions (
    release   TEXT NOT NULL,
    host      TEXT NOT NULL,
    block     BIGINT NOT NULL,
    arm       TEXT NOT NULL,
    org       TEXT NOT NULL,
    stratum   TEXT NOT NULL,
    cell      TEXT NOT NULL,
    ring      BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    lease     TEXT NOT NULL UNIQUE,
    before    TEXT NOT NULL,
    boot      TEXT NOT NULL,
    crashes   BIGINT NOT NULL,
    rss       BIGINT NOT NULL,
    cpu       BIGINT NOT NULL,
    activated BIGINT NOT NULL,
    clean     BIGINT NOT NULL,
    gone      BIGINT NOT NULL,
    why       TEXT NOT NULL,
    returned  BIGINT NOT NULL,
    PRIMARY KEY (release, host, block)
);
CREATE INDEX admissions_host ON admissions (host);

CREATE TABLE harms (
    seq     BIGINT PRIMARY KEY,
    release TEXT NOT NULL,
    host    TEXT NOT NULL,
    org     TEXT NOT NULL,
    stratum TEXT NOT NULL,
    block   BIGINT NOT NULL,
    arm     TEXT NOT NULL,
    kind    TEXT NOT NULL,
    at      BIGINT NOT NULL,
    detail  TEXT NOT NULL,
    ring    BIGINT NOT NULL,
    cell    TEXT NOT NULL,
    after   BIGINT NOT NULL, -- nanoseconds of observation
    first   BOOLEAN NOT NULL, -- of any kind, of that host in that block
    UNIQUE (release, host, block, kind)
);
CREATE INDEX harms_release ON harms (release, seq);

CREATE TABLE findings (
    seq      BIGINT PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    org      TEXT NOT NULL,
    host     TEXT NOT NULL,
    rule     TEXT NOT NULL,
    severity TEXT NOT NULL,
    bundle   TEXT NOT NULL,
    at       BIGINT NOT NULL,
    received BIGINT NOT NULL,
    finding  TEXT NOT NULL
);
CREATE INDEX findings_host ON findings (host, seq);
CREATE INDEX findings_rule ON findings (rule, seq);
CREATE INDEX findings_org ON findings (org, seq);

CREATE TABLE record (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    org     TEXT NOT NULL,
    by_name TEXT NOT NULL,
    release TEXT NOT NULL,
    bundle  TEXT NOT NULL,
    leaf    BYTEA NOT NULL -- the entry's bytes, as they were hashed
);
CREATE INDEX record_release ON record (release, seq);

CREATE TABLE record_hashes (
    position BIGINT PRIMARY KEY, -- tlog's stored hash index
    hash     BYTEA NOT NULL
);

CREATE TABLE record_heads (
    size       BIGINT PRIMARY KEY,
    checkpoint BYTEA NOT NULL, -- signed note
    at         BIGINT NOT NULL
);

CREATE TABLE leases (
    name    TEXT PRIMARY KEY,
    holder  TEXT NOT NULL,
    term    BIGINT NOT NULL, -- grows whenever the holder changes
    expires BIGINT NOT NULL
);

CREATE TABLE commands (
    id      TEXT PRIMARY KEY,
    host    TEXT NOT NULL,
    kind    TEXT NOT NULL,
    args    TEXT NOT NULL,
    by_name TEXT NOT NULL,
    at      BIGINT NOT NULL,
    done    BIGINT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX commands_host ON commands (host, done);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- +goose Down
DROP TABLE settings;
DROP TABLE commands;
DROP TABLE leases;
DROP TABLE record_heads;
DROP TABLE record_hashes;
DROP TABLE record;
DROP TABLE findings;
DROP TABLE harms;
DROP TABLE admissions;
DROP TABLE openings;
DROP TABLE orders;
DROP TABLE rollouts;
DROP TABLE releases;
DROP TABLE verdicts;
DROP TABLE checks;
DROP TABLE bundles;
DROP TABLE builds;
DROP TABLE hosts;
DROP TABLE enrolments;
DROP TABLE sign_ins;
DROP TABLE api_tokens;
DROP TABLE sessions;
DROP TABLE users;
DROP TABLE orgs;
DROP TABLE counters;
