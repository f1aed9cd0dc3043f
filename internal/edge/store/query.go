package store

import (
	"context"
	"strconv"
	"strings"
)

// where collects conditions written with ? and numbers their arguments.
type where struct {
	conditions []string
	args       []any
}

func (w *where) add(condition string, args ...any) {
	var b strings.Builder
	for _, part := range strings.SplitAfter(condition, "?") {
		if before, ok := strings.CutSuffix(part, "?"); ok {
			b.WriteString(before)
			b.WriteString(w.arg(args[0]))
			args = args[1:]
			continue
		}
		b.WriteString(part)
	}
	w.conditions = append(w.conditions, b.String())
}

// arg adds an argument and returns its number.
func (w *where) arg(a any) string {
	w.args = append(w.args, a)
	return "$" + strconv.Itoa(len(w.args))
}

func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = ?", value)
	}
}

func (w *where) flag(column string, value *bool) {
	if value != nil {
		w.add(column+" = ?", *value)
	}
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func limit(n int) int {
	if n <= 0 {
		return 100
	}
	return min(n, 10_000)
}

// insert writes rows in as few statements as the dialect allows, in one
// transaction, and says how many were written: fewer than given if onConflict
// passes over some.
func (s *Store) insert(ctx context.Context, into, onConflict string, rows [][]any) (written int64, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	err = s.Tx(ctx, func(tx *Store) error {
		written = 0
		columns := len(rows[0])
		most := min(500, tx.dialect.maxArgs()/columns)
		for rest := rows; len(rest) > 0; {
			n := min(len(rest), most)
			args := make([]any, 0, n*columns)
			for _, r := range rest[:n] {
				args = append(args, r...)
			}
			affected, err := tx.exec(ctx, into+tx.dialect.values(columns, n)+onConflict, args...)
			if err != nil {
				return err
			}
			written += affected
			rest = rest[n:]
		}
		return nil
	})
	return written, err
}

// each runs one statement for every row of arguments, in one transaction. The
// statement is parsed once.
func (s *Store) each(ctx context.Context, query string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	return s.Tx(ctx, func(tx *Store) error {
		prepared, err := tx.tx.PrepareContext(ctx, query)
		if err != nil {
			return s.wrap(err)
		}
		defer prepared.Close()
		for _, args := range rows {
			storableAll(args)
			if _, err := prepared.ExecContext(ctx, args...); err != nil {
				return s.wrap(err)
			}
		}
		return nil
	})
}
