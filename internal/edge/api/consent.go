package api

import (
	"crypto/ed25519"
	"encoding/base64"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// org is the organisation in the path. People see their own; those of the
// default organisation run the installation, and see all.
func (c *call) org() (holdfast.OrgID, error) {
	org := holdfast.OrgID(c.PathValue("org"))
	if c.user.Org != org && c.user.Org != holdfast.DefaultOrg {
		return "", &holdfast.Error{Kind: holdfast.Denied, What: "you belong to organisation " + string(c.user.Org)}
	}
	return org, nil
}

func (s *Server) consent(c *call) (any, error) {
	org, err := c.org()
	if err != nil {
		return nil, err
	}
	return c.read.Consent(c.Context(), org)
}

// putConsent carries what an organisation signed. Naming the key that it counts
// with is for administrators.
func (s *Server) putConsent(c *call) (any, error) {
	org, err := c.org()
	if err != nil {
		return nil, err
	}
	var key ed25519.PublicKey
	if public := c.URL.Query().Get("public"); public != "" {
		if c.user.Role != holdfast.Administrator {
			return nil, &holdfast.Error{Kind: holdfast.Denied, What: "only an administrator names an organisation's key"}
		}
		if key, err = base64.StdEncoding.DecodeString(public); err != nil || len(key) != ed25519.PublicKeySize {
			return nil, &holdfast.Error{Kind: holdfast.Invalid, What: "not an Ed25519 public key in base64", Where: "public"}
		}
	}
	envelope, err := c.upload(consent.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	p, err := s.Publish.PutConsent(c.Context(), org, envelope, key, c.user.Name)
	return apiv1.ConsentAnswer{Org: p.Org, Version: p.Version}, err
}
