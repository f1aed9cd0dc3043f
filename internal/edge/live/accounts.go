package live

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/edge/store"
)

// Accounts is the store's directory of people, with every change of who may do
// what on the record, in the transaction that makes it. Whoever may release or
// override is part of every later decision.
type Accounts struct {
	*store.Store
	Now func() time.Time
}

// CreateUser implements console.Directory.
func (a Accounts) CreateUser(ctx context.Context, u holdfast.User, password, by string) error {
	return a.Recorded(ctx, by, fmt.Sprintf("%s was added as %s", u.Name, u.Role), func(tx *store.Store) error {
		return tx.CreateUser(ctx, u, password)
	})
}

// UpdateUser implements console.Directory.
func (a Accounts) UpdateUser(ctx context.Context, u holdfast.User, by string) error {
	text := fmt.Sprintf("%s is %s and may sign in", u.Name, u.Role)
	if u.Disabled {
		text = u.Name + " may not sign in any more"
	}
	return a.Recorded(ctx, by, text, func(tx *store.Store) error { return tx.UpdateUser(ctx, u) })
}

// SetPassword implements console.Directory.
func (a Accounts) SetPassword(ctx context.Context, name, password, by string) error {
	return a.Recorded(ctx, by, "the password of "+name+" was set", func(tx *store.Store) error {
		return tx.SetPassword(ctx, name, password)
	})
}

// Recorded makes a change and says so on the record, both or neither.
func (a Accounts) Recorded(ctx context.Context, by, text string, change func(*store.Store) error) error {
	return a.Tx(ctx, func(tx *store.Store) error {
		if err := change(tx); err != nil {
			return err
		}
		_, err := tx.Append(ctx, holdfast.Entry{At: a.Now().UTC(), Kind: "people", Org: holdfast.DefaultOrg, By: by, Text: text})
		return err
	})
}
