package detect

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// A fingerprint stands for what a rule looks for, or a correlation counts: its
// searches and condition, its filters, its log source; the rules counted, by
// which fields, over which time. Titles, thresholds and places in files are not
// in it. Counts may go from one correlation to another with the same.
type fingerprint [sha256.Size]byte

// meaning writes what a fingerprint is made of, each part with its length, so
// that no two meanings write the same bytes.
type meaning struct{ sum hash.Hash }

func newMeaning() meaning { return meaning{sha256.New()} }

func (m meaning) text(parts ...string) {
	for _, s := range parts {
		m.number(len(s))
		m.sum.Write([]byte(s))
	}
}

func (m meaning) number(n int) {
	m.sum.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func (m meaning) done() fingerprint { return fingerprint(m.sum.Sum(nil)) }

func (c *compiler) ruleMeaning(a admitted) fingerprint {
	m := newMeaning()
	m.text(a.source.LogSource.String())
	m.detection(&a.source.Detection, c.options.Placeholders)
	for _, f := range a.filter {
		m.detection(&f.Detection, c.options.Placeholders)
	}
	return m.done()
}

func (m meaning) detection(d *sigma.Detection, placeholders map[string][]string) {
	m.number(len(d.Searches))
	for i := range d.Searches {
		m.node(&d.Searches[i].Node, placeholders)
	}
	m.condition(d.Condition)
}

func (m meaning) node(n *sigma.Node, placeholders map[string][]string) {
	m.number(len(n.Kids))
	if n.All {
		m.text("all")
	}
	for i := range n.Kids {
		m.node(&n.Kids[i], placeholders)
	}
	if n.Item == nil {
		return
	}
	m.text(n.Item.Field)
	m.text(n.Item.Modifiers...)
	for _, l := range n.Item.Values {
		m.number(int(l.Kind))
		m.text(l.Text)
	}
	if slices.Contains(n.Item.Modifiers, "expand") {
		m.text(fmt.Sprint(placeholders)) // fmt sorts keys
	}
}

func (m meaning) condition(c *sigma.Condition) {
	m.number(int(c.Op))
	m.number(c.Search)
	m.number(c.N)
	for _, i := range c.Searches {
		m.number(i)
	}
	m.number(len(c.Kids))
	for _, kid := range c.Kids {
		m.condition(kid)
	}
}

// correlationMeaning is a correlation's, once its inputs are known.
func (c *compiler) correlationMeaning(co *correlation) fingerprint {
	m := newMeaning()
	m.text(string(co.def.Type), co.def.Timespan.String())
	for i, input := range co.inputs {
		of := c.meanings[input]
		m.sum.Write(of[:])
		for _, f := range co.def.GroupBy {
			m.text("by", co.def.FieldOf(f, i))
		}
	}
	m.text(co.def.Fields...)
	return m.done()
}
