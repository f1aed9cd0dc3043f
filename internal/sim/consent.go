package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// Consent is a policy of an organisation, and how it comes to its hosts.
type Consent struct {
	Policy consent.Policy
	// At is when it is there, after the release is approved; before that, from
	// the beginning.
	At   time.Duration
	Road Road
}

// Road is how a policy comes to hosts.
type Road string

// The roads.
const (
	ByServer Road = "server" // it was given to the server, which gives it to hosts
	ByFile   Road = "file"   // the organisation brings it to its hosts; the server has never seen it
	Stolen   Road = "stolen" // whoever holds the server gives it, old as it may be
	Forged   Road = "forged" // so too, and the organisation did not sign it
)

func (c *Consent) String() string {
	text := strings.Join(strings.Fields(string(c.File())), " ")
	return fmt.Sprintf("policy (%s, at %s) {%s}", c.Road, c.At, text)
}

// File writes the policy as its organisation would.
func (c *Consent) File() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "organisation: %s\nversion: %d\ngroups:\n", c.Policy.Org, c.Policy.Version)
	for i := range c.Policy.Groups {
		g := &c.Policy.Groups[i]
		fmt.Fprintf(&b, "  - name: %s\n", g.Name)
		var where []string
		if g.Where.Role != "" {
			where = append(where, "role: "+g.Where.Role)
		}
		if len(g.Where.Hosts) > 0 {
			where = append(where, fmt.Sprintf("hosts: [%s]", join(g.Where.Hosts)))
		}
		fmt.Fprintf(&b, "    where: {%s}\n", strings.Join(where, ", "))
		for _, x := range []struct {
			name string
			rule consent.Rule
		}{{"channels", g.Rules["rules"]}, {"critical", g.Critical["rules"]}} {
			if x.rule.Track != "" {
				fmt.Fprintf(&b, "    %s: {rules: {%s}}\n", x.name, ruleText(x.rule))
			}
		}
		if len(g.Windows) > 0 {
			b.WriteString("    windows:\n")
		}
		for j := range g.Windows {
			w := &g.Windows[j]
			var days []string
			for day, on := range w.Days {
				if on {
					days = append(days, strings.ToLower(time.Weekday(day).String()[:3]))
				}
			}
			fmt.Fprintf(&b, "      - {days: [%s], from: %q, to: %q, zone: %s}\n", strings.Join(days, ", "), clockText(w.From), clockText(w.To), w.Zone)
		}
	}
	return []byte(b.String())
}

func ruleText(r consent.Rule) string {
	s := fmt.Sprintf("track: %s", r.Track)
	switch r.Track {
	case consent.Delay:
		s += fmt.Sprintf(", delay: %s", r.Delay)
	case consent.Pin:
		s += fmt.Sprintf(", pin: %q", r.Pin)
	}
	return s
}

func clockText(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

func join[T ~string](all []T) string {
	var s []string
	for _, x := range all {
		s = append(s, string(x))
	}
	return strings.Join(s, ", ")
}
