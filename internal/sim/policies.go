package sim

import (
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/consent"
)

// onePolicy is what an organisation signs, and how it comes to its hosts.
type onePolicy struct {
	Policy yaml.Node `yaml:"policy"` // a policy file, to the letter; package consent reads it
	At     length    `yaml:"at"`
	By     Road      `yaml:"by"`
}

// policies reads what organisations sign.
func (s *scenarioReader) policies(w *World) error {
	r := &s.in.Release
	w.Critical, w.Signed = r.Critical, r.Signed.v.Duration
	w.Version, w.Before = cmp.Or(r.Version.v, NewVersion), cmp.Or(r.Before.v, OldVersion)
	if w.Version == w.Before {
		return s.bad(max(r.Version.line, r.Before.line), fmt.Sprintf("version %s is released, and runs already", w.Version), "version is what is released, before what runs until then")
	}
	w.Begins = s.in.Begins.v.Time
	latest := map[holdfast.OrgID]int64{}
	for i := range s.in.Policies {
		c, err := s.policy(&s.in.Policies[i], w)
		if err != nil {
			return err
		}
		line := s.in.Policies[i].line
		if c.Road == ByServer {
			if before := latest[c.Policy.Org]; c.Policy.Version <= before {
				return s.bad(line, fmt.Sprintf("version %d of %s's policy comes after version %d: the server refuses it", c.Policy.Version, c.Policy.Org, before), "count version up, or write by: stolen to see what an older one does")
			}
			latest[c.Policy.Org] = c.Policy.Version
		}
		w.Consents = append(w.Consents, c)
		s.policyLimits(line, &c)
	}
	return nil
}

func (s *scenarioReader) policy(v *value[onePolicy], w *World) (Consent, error) {
	c := Consent{At: v.v.At.Duration, Road: cmp.Or(v.v.By, ByServer)}
	if v.v.Policy.IsZero() {
		return c, s.bad(v.line, "a policy is missing", "put the policy file below policy:")
	}
	switch c.Road {
	case ByServer, ByFile, Stolen, Forged:
	default:
		return c, s.bad(v.line, fmt.Sprintf("%q is not a road on which a policy comes", c.Road), "use by: server, file, stolen or forged")
	}
	if c.At >= w.Until {
		return c, s.bad(v.line, fmt.Sprintf("the policy comes at %s, and the run ends at %s", c.At, w.Until), "")
	}
	var err error
	if c.Policy, err = consent.ParseNode(s.file, &v.v.Policy); err != nil {
		return c, err
	}
	if !slices.ContainsFunc(w.Kinds, func(k Kind) bool { return k.Org == c.Policy.Org }) {
		return c, s.bad(v.v.Policy.Line, fmt.Sprintf("no host of this fleet is of organisation %q", c.Policy.Org), "give kinds an organisation")
	}
	err = c.Policy.CheckPins(s.file, func(channel holdfast.Channel, version string) bool {
		return channel != holdfast.Rules || version == w.Version || version == w.Before
	})
	return c, err
}

// policyLimits notes what counts cannot play of a policy.
func (s *scenarioReader) policyLimits(line int, c *Consent) {
	if c.At > 0 {
		s.only(InCounts, line, "counts plays only policies that are in force from the beginning", "write fidelity: exact, or leave at out")
	}
	if c.Road != ByServer {
		s.only(InCounts, line, "counts plays no single hosts, and so no policy that comes to them past the server", "write fidelity: exact, or leave by out")
	}
	for _, g := range c.Policy.Groups {
		if len(g.Where.Hosts) > 0 {
			s.only(InCounts, line, fmt.Sprintf("group %q names hosts, and counts plays no single ones", g.Name), "write fidelity: exact, or select them by kernel, distro, role or agent")
		}
	}
}

// idle says which groups of the policies hold no host: one that was made for a
// real fleet may well have some.
func idle(w *World) (notes []string) {
	for i := range w.Consents {
		p := &w.Consents[i].Policy
		for j := range p.Groups {
			if !holdsAny(w.Kinds, p.Org, &p.Groups[j].Where) {
				notes = append(notes, fmt.Sprintf("group %q of %s's policy %d holds no host of this fleet", p.Groups[j].Name, p.Org, p.Version))
			}
		}
	}
	return notes
}

func holdsAny(kinds []Kind, org holdfast.OrgID, where *consent.Selector) bool {
	first := 0
	for i := range kinds {
		k := &kinds[i]
		a := k.Attributes()
		if k.Org == org && k.Hosts > 0 {
			if len(where.Hosts) == 0 && where.Matches("", &a) {
				return true
			}
			for _, id := range where.Hosts {
				var n int
				if _, err := fmt.Sscanf(string(id), "host-%d", &n); err == nil && id == HostName(n) && n >= first && n < first+k.Hosts && where.Matches(id, &a) {
					return true
				}
			}
		}
		first += k.Hosts
	}
	return false
}
