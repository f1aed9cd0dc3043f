package detect

import (
	"math"
	"strings"
)

// census counts windows of three and of four bytes: how common they are in what
// rules look for and, weighing more, in what every host runs.
//
// It is a table by hash: two windows may share a count, which costs nothing but
// a little of the choice.
type census []uint16

const censusOrder = 16

func (c census) at(key uint32) *uint16 { return &c[key*windowHash>>(32-censusOrder)] }

func newCensus() census {
	c := make(census, 1<<censusOrder)
	for _, text := range everyday {
		c.add(text, 40)
	}
	return c
}

func (c census) add(lit string, weight uint16) {
	for size := 3; size <= 4; size++ {
		for o := 0; o+size <= len(lit); o++ {
			if n := c.at(keyAt(lit, o, size)); *n < math.MaxUint16-weight {
				*n += weight
			}
		}
	}
}

// everyday are texts that paths, command lines and registry keys are full of.
var everyday = []string{
	`c:\windows\system32\`, `c:\windows\syswow64\`, `\windows\winsxs\amd64_`, `c:\program files (x86)\`, `c:\program files\`, `c:\programdata\microsoft\windows\`,
	`c:\users\`, `\appdata\local\`, `\appdata\roaming\`, `\appdata\local\temp\`, `\microsoft\`, `\google\chrome\application\chrome.exe`, `\microsoft office\root\office16\`,
	`\windowspowershell\v1.0\powershell.exe`, `svchost.exe -k `, `services.exe`, `explorer.exe`, `cmd.exe /c `, `conhost.exe`, `.exe" --type=`, `\system\currentcontrolset\services\`,
	`hklm\software\microsoft\windows nt\currentversion\`, `hkcu\software\microsoft\windows\currentversion\`, `hku\s-1-5-21-`, `software\classes\`, `.dll`, `.exe`, ` -command `, `http://`, `https://www.`,
	`/usr/bin/`, `/usr/local/bin/`, `/usr/sbin/`, `/usr/lib/`, `/usr/lib/x86_64-linux-gnu/`, `/bin/bash -c `, `/bin/sh -c `, `/etc/systemd/system/`, `/var/lib/`, `/var/log/`, `/proc/`, `/home/`, `/tmp/`, `/opt/`, `python3 `,
	`.json`, `.conf`, `.service`, ` --config=`, ` --version`, `microsoft corporation`, `true`, `system`, `.com`, `.net`,
}

var everydayText = strings.Join(everyday, "\x00")

// commonness ranks bytes by how often paths and command lines have them.
var commonness = func() (t [256]uint8) {
	const commonFirst = ` e\s/toirnac.mdlp-wu"xyh3g2b0:1fv45=68k_97jqz,$%;&|`
	for i := range len(commonFirst) {
		t[commonFirst[i]] = uint8(max(60-i, 12))
	}
	return t
}()
