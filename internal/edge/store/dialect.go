package store

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/holdfast-security/holdfast"
)

// dialect is all that differs between the databases; the queries are the same.
type dialect interface {
	open(source string) (*sql.DB, error)
	goose() goose.Dialect
	// oneWriter reports whether the database takes one writing transaction at a
	// time and belongs to this process alone.
	oneWriter() bool
	// values writes the VALUES of a batch of rows of some columns each.
	values(columns, rows int) string
	// maxArgs is how many arguments one statement may have.
	maxArgs() int
	// kind classifies an error of the driver.
	kind(error) holdfast.Kind
}

func dialectOf(source string) dialect {
	if strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://") {
		return postgres{}
	}
	return sqliteFile{}
}

type sqliteFile struct{}

func (sqliteFile) open(source string) (*sql.DB, error) {
	// The file holds password hashes and tokens: it is born private. SQLite
	// gives its journal files the mode of the file itself.
	f, err := os.OpenFile(source, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
		"cache_size(-16000)", "temp_store(MEMORY)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: source}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	return db, nil
}

func (sqliteFile) goose() goose.Dialect { return goose.DialectSQLite3 }
func (sqliteFile) oneWriter() bool      { return true }
func (sqliteFile) maxArgs() int         { return 32_000 }

// values uses plain ?: with numbered arguments the driver looks each up by
// name, and a batch runs some twenty times slower.
func (sqliteFile) values(columns, rows int) string {
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	return row + strings.Repeat(","+row, rows-1)
}

func (sqliteFile) kind(err error) holdfast.Kind {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return holdfast.Internal
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT:
		return holdfast.Conflict
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT:
		return holdfast.Unavailable
	}
	return holdfast.Internal
}

type postgres struct{}

func (postgres) open(source string) (*sql.DB, error) {
	db, err := sql.Open("pgx", source)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return db, nil
}

func (postgres) goose() goose.Dialect { return goose.DialectPostgres }
func (postgres) oneWriter() bool      { return false }
func (postgres) maxArgs() int         { return 60_000 }

func (postgres) values(columns, rows int) string {
	var b strings.Builder
	n := 0
	for r := range rows {
		if r > 0 {
			b.WriteByte(',')
		}
		for c := range columns {
			b.WriteByte("(,"[min(c, 1)])
			b.WriteByte('$')
			n++
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteByte(')')
	}
	return b.String()
}

func (postgres) kind(err error) holdfast.Kind {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return holdfast.Unavailable // the connection, not the statement
	}
	switch e.Code[:2] {
	case "23": // integrity constraint violation
		return holdfast.Conflict
	case "40", "53", "57", "58", "08": // rolled back, out of resources, shutting down, system, connection
		return holdfast.Unavailable
	}
	return holdfast.Internal
}
