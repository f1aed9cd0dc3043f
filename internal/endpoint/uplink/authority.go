//go:build !holdfast_mute

package uplink

import "crypto/x509"

// authority is the pool of the one that hosts believe.
func authority(ca *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}
