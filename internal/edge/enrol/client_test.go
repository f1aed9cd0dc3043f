package enrol_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

func pinned(pool *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
}
