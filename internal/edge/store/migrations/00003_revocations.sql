-- +goose Up
CREATE TABLE revocations (
    host    TEXT PRIMARY KEY REFERENCES hosts (id),
    at      BIGINT NOT NULL,
    by_name TEXT NOT NULL,
    reason  TEXT NOT NULL
);

-- +goose Down
DROP TABLE revocations;
