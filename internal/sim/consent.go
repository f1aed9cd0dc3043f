package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
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

// needsHosts reports whether the policy can only be played host by host.
func (c *Consent) needsHosts() bool {
	return c.At > 0 || c.Road != ByServer || slices.ContainsFunc(c.Policy.Groups, func(g consent.Group) bool { return len(g.Where.Hosts) > 0 })
}

// File writes the policy as its organisation would.
func (c *Consent) File() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "organisation: %q\nversion: %d\ngroups:\n", c.Policy.Org, c.Policy.Version)
	for i := range c.Policy.Groups {
		g := &c.Policy.Groups[i]
		fmt.Fprintf(&b, "  - name: %q\n    where: {%s}\n", g.Name, whereText(&g.Where))
		for _, x := range []struct {
			name  string
			rules map[holdfast.Channel]consent.Rule
		}{{"channels", g.Rules}, {"critical", g.Critical}} {
			if rules := rulesText(x.rules); rules != "" {
				fmt.Fprintf(&b, "    %s: {%s}\n", x.name, rules)
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

func whereText(s *consent.Selector) string {
	var parts []string
	for _, x := range []struct{ name, value string }{{"kernel", s.Kernel}, {"distro", s.Distro}, {"role", s.Role}, {"agent", s.Version}} {
		if x.value != "" {
			parts = append(parts, fmt.Sprintf("%s: %q", x.name, x.value))
		}
	}
	if len(s.Hosts) > 0 {
		var ids []string
		for _, id := range s.Hosts {
			ids = append(ids, strconv.Quote(string(id)))
		}
		parts = append(parts, fmt.Sprintf("hosts: [%s]", strings.Join(ids, ", ")))
	}
	return strings.Join(parts, ", ")
}

func rulesText(rules map[holdfast.Channel]consent.Rule) string {
	var parts []string
	for _, c := range holdfast.Channels {
		if r, ok := rules[c]; ok && r.Track != "" {
			parts = append(parts, fmt.Sprintf("%s: {%s}", c, ruleText(r)))
		}
	}
	return strings.Join(parts, ", ")
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
