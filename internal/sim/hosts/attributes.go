package hosts

import (
	"fmt"
	"math/rand/v2"
	"runtime"

	"github.com/holdfast-security/holdfast"
)

// The machines that a fleet is made of, with how many of each in a hundred.
// Kernel and distribution belong together as they do in life.
var machines = []struct {
	share          int
	distro, kernel string
}{
	{34, "debian-12", "6.1"},
	{26, "ubuntu-22.04", "5.15"},
	{20, "ubuntu-24.04", "6.8"},
	{20, "rhel-9", "5.14"},
}

var roles = []struct {
	share int
	name  string
}{{70, "server"}, {30, "laptop"}}

// attributes draws what host i is. It depends on the seed and i alone.
func (f *Fleet) attributes(i int) holdfast.Attributes {
	r := rand.New(rand.NewPCG(f.cfg.Seed, uint64(i)))
	a := holdfast.Attributes{
		OS: "linux", Arch: runtime.GOARCH, Build: f.build.Digest, Version: f.build.Manifest.Version, Sensor: "replay",
	}
	n := r.IntN(100)
	for _, m := range machines {
		if n -= m.share; n < 0 {
			a.Distro, a.Kernel = m.distro, m.kernel
			break
		}
	}
	n = r.IntN(100)
	for _, role := range roles {
		if n -= role.share; n < 0 {
			a.Role = role.name
			break
		}
	}
	a.Hostname = fmt.Sprintf("sim-%s-%04d", a.Role, i)
	return a
}
