package holdfast

import "time"

// EnrolToken is a permission to enrol hosts, as the control plane keeps it:
// without its secret, of which only the hash is stored.
type EnrolToken struct {
	ID      string    `json:"id"`
	Hash    Digest    `json:"hash"` // SHA-256 of the secret
	Org     OrgID     `json:"org"`
	Role    string    `json:"role,omitempty"` // given to the hosts, whatever they say of themselves; empty leaves it to them
	Uses    int       `json:"uses"`           // hosts it may still enrol
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	By      string    `json:"by"`
}
