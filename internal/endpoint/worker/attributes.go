package worker

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// Attributes says what a host is, as far as it can tell by itself. build is the
// digest of the running program; if it is empty it is worked out.
func Attributes(c Config, version string, build holdfast.Digest) (holdfast.Attributes, error) {
	if build == "" {
		var err error
		if build, err = Build(); err != nil {
			return holdfast.Attributes{}, err
		}
	}
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return holdfast.Attributes{
		Hostname: name, OS: runtime.GOOS, Arch: runtime.GOARCH,
		Kernel: majorMinor(kernelRelease()), Distro: distribution("/etc/os-release"),
		Role: c.Role, Build: build, Version: version,
	}, nil
}

// Build returns the digest of the program that runs.
func Build() (holdfast.Digest, error) {
	path, err := os.Executable()
	if err != nil {
		return "", holdfast.Errorf(holdfast.Internal, "find the running program: %w", err)
	}
	if runtime.GOOS == "linux" { // even if its file was replaced or removed
		path = "/proc/self/exe"
	}
	f, err := os.Open(path)
	if err != nil {
		return "", holdfast.Errorf(holdfast.Internal, "read the running program: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", holdfast.Errorf(holdfast.Internal, "read the running program: %w", err)
	}
	return holdfast.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil))), nil
}

// majorMinor shortens a kernel release: "6.1.0-18-amd64" to "6.1".
func majorMinor(release string) string {
	n := 0
	for i, c := range release {
		if c == '.' {
			if n++; n == 2 {
				return release[:i]
			}
		} else if c < '0' || c > '9' {
			return release[:i]
		}
	}
	return release
}

// distribution reads "debian-12" from os-release(5); the operating system's name
// if there is none.
func distribution(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return runtime.GOOS
	}
	fields := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok {
			fields[k] = strings.Trim(v, `"'`)
		}
	}
	switch id, version := fields["ID"], fields["VERSION_ID"]; {
	case id == "":
		return runtime.GOOS
	case version == "":
		return id
	default:
		return id + "-" + version
	}
}
