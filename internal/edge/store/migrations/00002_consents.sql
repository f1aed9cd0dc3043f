-- +goose Up
CREATE TABLE consents (
    org      TEXT PRIMARY KEY,
    version  BIGINT NOT NULL,
    key      BYTEA NOT NULL, -- the organisation's public key, Ed25519
    envelope BYTEA NOT NULL,
    by_name  TEXT NOT NULL,
    at       BIGINT NOT NULL
);
