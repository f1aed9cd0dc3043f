package console

import (
	"net/http"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// revokePage asks whether a host is to be revoked.
type revokePage struct {
	hostPage
	Text    string
	Problem string
}

// hostResults is what the host page says after a decision about it.
var hostResults = map[string]string{"revoke": "Revoked. Its connection is closed, and it is not of the fleet any more."}

func (s *Console) revokePage(r *http.Request, v *visit) (p revokePage, err error) {
	p.shell = s.shell(v, "Revoke", "fleet")
	p.HostDetail, err = v.source.Host(r.Context(), holdfast.HostID(r.PathValue("id")))
	return p, err
}

func (s *Console) askToRevoke(w http.ResponseWriter, r *http.Request, v *visit) error {
	p, err := s.revokePage(r, v)
	if err != nil {
		return err
	}
	if p.Revocation != nil {
		return &holdfast.Error{Kind: holdfast.Conflict, What: "it was revoked by " + p.Revocation.By, Where: string(p.ID), Do: "its page says when, and why"}
	}
	return s.render(w, http.StatusOK, revokeView(p))
}

func (s *Console) revoke(w http.ResponseWriter, r *http.Request, v *visit) error {
	p, err := s.revokePage(r, v)
	if err != nil {
		return err
	}
	if p.Text = strings.TrimSpace(r.PostFormValue("text")); p.Text == "" || len(p.Text) > 2000 {
		p.Problem = "Say why, in up to 2,000 characters. It stands on the record beside your name."
		return s.render(w, http.StatusBadRequest, revokeView(p))
	}
	if _, err := s.Hosts.Revoke(r.Context(), p.ID, v.User.Name, p.Text); err != nil {
		return err
	}
	http.Redirect(w, r, p.path()+"?done=revoke", http.StatusSeeOther)
	return nil
}
