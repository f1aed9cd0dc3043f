// Package store is the durable truth of the control plane: one SQL schema on
// SQLite (the default, embedded) or PostgreSQL.
//
// Every method may be called on the Store that Open returned, where it is a
// transaction of its own, or inside Tx on the Store that the function is
// given, where it takes part in that transaction. Errors are holdfast errors:
// NotFound for a missing row, Conflict for a lost compare-and-swap or a key
// that exists, Unavailable when the database could not be reached (the
// outcome of a write is then unknown: reload from here before deciding again).
//
// Times are stored in UTC with nanoseconds. No method reads a clock.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/holdfast-security/holdfast"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a handle on the database, or on one transaction of it. It is safe
// for concurrent use unless it belongs to a transaction.
type Store struct {
	db      *sql.DB
	dialect dialect
	// writing is held by the one writing transaction SQLite allows, so that
	// writers queue in order instead of polling the database's lock. nil for
	// PostgreSQL.
	writing chan struct{}
	tx      *sql.Tx // nil outside a transaction
}

// Open opens the database that source names and brings its schema up to date.
// A source is "postgres://…", or the path of an SQLite file, which is created
// if it does not exist.
func Open(ctx context.Context, source string) (*Store, error) {
	d := dialectOf(source)
	db, err := d.open(source)
	if err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Unavailable, What: "cannot open the database", Where: redacted(source), Err: err}
	}
	s := &Store{db: db, dialect: d}
	if d.oneWriter() {
		s.writing = make(chan struct{}, 1)
	}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, &holdfast.Error{
			Kind: holdfast.Unavailable, What: "cannot bring the database's schema up to date", Where: redacted(source), Err: err,
			Do: "check that the database is reachable, writable, and not from a newer version",
		}
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	var options []goose.ProviderOption
	if !s.dialect.oneWriter() { // several nodes may start at once
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(s.dialect.goose(), s.db, dir, options...)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Tx runs f in one transaction: everything f does through tx is durable
// together when Tx returns nil, and none of it happened if f returned an
// error. If Tx returns Unavailable the outcome is unknown. f must not keep tx,
// and must not use s itself. Inside a transaction, Tx joins it.
func (s *Store) Tx(ctx context.Context, f func(tx *Store) error) error {
	if s.tx != nil {
		return f(s)
	}
	if s.writing != nil {
		select {
		case s.writing <- struct{}{}:
			defer func() { <-s.writing }()
		case <-ctx.Done():
			return s.wrap(ctx.Err())
		}
	}
	t, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap(err)
	}
	defer t.Rollback() // after Commit it does nothing
	if err := f(&Store{db: s.db, dialect: s.dialect, tx: t}); err != nil {
		return err
	}
	return s.wrap(t.Commit())
}

func (s *Store) exec(ctx context.Context, query string, args ...any) (affected int64, err error) {
	storableAll(args)
	run := func(tx *Store) error {
		r, err := tx.tx.ExecContext(ctx, query, args...)
		if err != nil {
			return s.wrap(err)
		}
		affected, err = r.RowsAffected()
		return s.wrap(err)
	}
	err = s.Tx(ctx, run)
	return affected, err
}

// storable replaces what PostgreSQL does not take as text. Hosts choose some of
// what is stored; one of them must not be able to make a transaction fail that
// others share.
func storable(text string) string {
	if strings.IndexByte(text, 0) < 0 && utf8.ValidString(text) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

func storableAll(args []any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			if clean := storable(text); clean != text {
				args[i] = clean
			}
		}
	}
}

// row reads one row of query; NotFound, naming what, if there is none.
func (s *Store) row(ctx context.Context, what, query string, args []any, into ...any) error {
	var r *sql.Row
	if s.tx != nil {
		r = s.tx.QueryRowContext(ctx, query, args...)
	} else {
		r = s.db.QueryRowContext(ctx, query, args...)
	}
	err := r.Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return holdfast.Errorf(holdfast.NotFound, "there is no %s", what)
	}
	return s.wrap(err)
}

// rows calls each for every row of query.
func (s *Store) rows(ctx context.Context, query string, args []any, each func(scan func(...any) error) error) (err error) {
	var r *sql.Rows
	if s.tx != nil {
		r, err = s.tx.QueryContext(ctx, query, args...)
	} else {
		r, err = s.db.QueryContext(ctx, query, args...)
	}
	if err != nil {
		return s.wrap(err)
	}
	defer r.Close()
	for r.Next() {
		if err := each(r.Scan); err != nil {
			return s.wrap(err)
		}
	}
	return s.wrap(r.Err())
}

// next draws n consecutive numbers from a counter and returns the first. The
// counter's row stays locked until the transaction ends, so numbers become
// visible in order and a reader that asks for "after n" misses none.
func (s *Store) next(ctx context.Context, counter string, n int) (first int64, err error) {
	var last int64
	err = s.row(ctx, "counter "+counter, `UPDATE counters SET value = value + $1 WHERE name = $2 RETURNING value`, []any{int64(n), counter}, &last)
	return last - int64(n) + 1, err
}

// wrap turns a driver's error into one of ours.
func (s *Store) wrap(err error) error {
	var ours *holdfast.Error
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, sql.ErrConnDone):
		return &holdfast.Error{Kind: holdfast.Unavailable, What: "the database did not answer in time", Err: err}
	}
	kind := s.dialect.kind(err)
	what := "the database refused"
	if kind == holdfast.Conflict {
		what = "this already exists, or something it refers to does not"
	}
	return &holdfast.Error{Kind: kind, What: what, Err: err}
}

// redacted is a source without its password.
func redacted(source string) string {
	scheme, rest, ok := strings.Cut(source, "://")
	if !ok {
		return source
	}
	if _, host, ok := strings.Cut(rest, "@"); ok {
		rest = host
	}
	rest, _, _ = strings.Cut(rest, "?")
	return scheme + "://" + rest
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
