package detect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/detect/reference"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// The property: on random rules and random events, the engine and the naive
// reference give the same verdicts. Values are drawn from few characters, so
// that they meet; among them all that is special.

var (
	fieldNames = []string{"a", "b", "c"}
	valueChars = []string{"a", "A", "b", "s", "ſ", "k", "K", "é", "É", "-", "/", "–", ".", "1", "0", " ", "世"}
	wildChars  = append([]string{"*", "?", `\`, `\*`, `\\`}, valueChars...)
	regexes    = []string{`a.b`, `(?:ab|ba)s+`, `^[aA]`, `k{2}`, `[Kk]a`, `\.`, `a|bb|é`, `(a)?b`, `sa$`, `aab.*ab`}
	lists      = map[string][]string{"one": {"a"}, "two": {"ab", "b*s"}}
)

func drawText(t *rapid.T, chars []string, label string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(chars), 0, 6).Draw(t, label), "")
}

// drawItem draws a field with modifiers and values that fit them.
func drawItem(t *rapid.T) (key string, values []string) {
	field := rapid.SampledFrom(fieldNames).Draw(t, "field")
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	each := func(draw func() string) {
		for range rapid.IntRange(1, 9).Draw(t, "values") {
			values = append(values, draw())
		}
	}
	text := func() string { return quote(drawText(t, wildChars, "value")) }
	plain := func() string { return quote("x" + drawText(t, valueChars, "plain")) }
	kind := rapid.SampledFrom([]string{
		"", "", "|contains", "|contains", "|startswith", "|endswith", "|windash", "|contains|windash", "|endswith|windash", "|re", "|re|i",
		"|base64|contains", "|base64offset|contains", "|wide|base64offset|contains", "|utf16be", "|exists", "null", "|cidr", "|gt", "|lte", "number",
		"|fieldref", "|fieldref|startswith", "|fieldref|contains", "|fieldref|endswith", "|expand", "|contains|expand", "|hour", "|week|gte", "|windash|base64offset|contains",
		"keyword", "keyword",
	}).Draw(t, "kind")
	switch {
	case kind == "null":
		return field, []string{"null"}
	case kind == "keyword":
		field, kind = "", ""
		each(func() string { return quote("b" + drawText(t, wildChars, "keyword")) })
	case kind == "number":
		kind = ""
		each(func() string { return fmt.Sprint(rapid.IntRange(-1, 12).Draw(t, "n")) })
	case strings.HasPrefix(kind, "|re"):
		each(func() string { return quote(rapid.SampledFrom(regexes).Draw(t, "re")) })
	case strings.Contains(kind, "base64") || strings.Contains(kind, "utf16"):
		values = []string{quote("xyz" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "-", "1"}), 0, 3).Draw(t, "encoded"), ""))}
	case kind == "|exists":
		return field + kind, []string{rapid.SampledFrom([]string{"true", "false"}).Draw(t, "exists")}
	case kind == "|cidr":
		each(func() string {
			return rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "127.0.0.1"}).Draw(t, "net")
		})
	case strings.HasPrefix(kind, "|fieldref"):
		each(func() string { return rapid.SampledFrom(append([]string{"d"}, fieldNames...)).Draw(t, "other") })
	case strings.HasSuffix(kind, "expand"):
		each(func() string {
			return quote(rapid.SampledFrom([]string{"%one%", "x%two%", `\%a%one%`, "%"}).Draw(t, "ph"))
		})
	case kind == "|gt" || kind == "|lte" || kind == "|hour" || kind == "|week|gte":
		each(func() string { return fmt.Sprint(rapid.IntRange(0, 12).Draw(t, "n")) })
	case rapid.Bool().Draw(t, "plain"):
		each(plain)
	default:
		each(text)
	}
	if len(values) > 1 && rapid.Bool().Draw(t, "all") {
		kind += "|all"
	}
	if rapid.IntRange(0, 4).Draw(t, "neq") == 0 {
		kind += "|neq"
	}
	if !strings.ContainsAny(kind, "0123456789") && rapid.IntRange(0, 4).Draw(t, "cased") == 0 && !strings.Contains(kind, "cidr") && !strings.Contains(kind, "gt") && !strings.Contains(kind, "lte") && !strings.Contains(kind, "hour") {
		kind += "|cased"
	}
	return field + kind, values
}

func drawRule(t *rapid.T, id int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: r%d\nid: r%d\nlogsource: {product: test}\ndetection:\n", id, id)
	n := rapid.IntRange(1, 4).Draw(t, "searches")
	for i := range n {
		fmt.Fprintf(&b, "  s%d:\n", i)
		seen := map[string]bool{}
		for range rapid.IntRange(1, 3).Draw(t, "items") {
			if key, values := drawItem(t); !seen[key] {
				seen[key] = true
				fmt.Fprintf(&b, "    '%s': [%s]\n", key, strings.Join(values, ", "))
			}
		}
	}
	fmt.Fprintf(&b, "  condition: %s\n", drawCondition(t, n, 3))
	return b.String()
}

func drawCondition(t *rapid.T, searches, depth int) string {
	one := func() string { return fmt.Sprintf("s%d", rapid.IntRange(0, searches-1).Draw(t, "search")) }
	if depth == 0 {
		return one()
	}
	sub := func() string { return drawCondition(t, searches, depth-1) }
	switch rapid.IntRange(0, 8).Draw(t, "condition") {
	case 0:
		return sub() + " and " + sub()
	case 1:
		return sub() + " or " + sub()
	case 2:
		return "not " + one()
	case 3:
		return "(" + sub() + ")"
	case 4:
		return "not (" + sub() + ")"
	case 5:
		return rapid.SampledFrom([]string{"1 of them", "all of them", "1 of s*", "all of s*", "2 of s*", "any of *0"}).Draw(t, "of")
	case 6:
		return sub() + " and not " + one()
	}
	return one()
}

// drawValue draws a value as both sides have it.
func drawValue(t *rapid.T) (ocsf.Value, any) {
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0:
		n := int64(rapid.IntRange(-1, 12).Draw(t, "int"))
		return ocsf.IntValue(n), n
	case 1:
		f := float64(rapid.IntRange(0, 24).Draw(t, "float")) / 2
		return ocsf.FloatValue(f), f
	case 2:
		b := rapid.Bool().Draw(t, "bool")
		return ocsf.BoolValue(b), b
	case 3:
		when := time.Unix(1732190000+int64(rapid.IntRange(0, 90*86400).Draw(t, "time")), 0).UTC()
		return ocsf.TimeValue(when), when
	case 4:
		s := rapid.SampledFrom([]string{"10.1.2.3", "::ffff:10.9.9.9", "2001:db8::1", "fe80::1%eth0", "127.0.0.1", "1.2", "2024-11-21 07:05:00", "2024-01-02", "12", "7.0"}).Draw(t, "special")
		return ocsf.StringValue(s), s
	case 5:
		// What encodings look like, between neighbours.
		s := rapid.SampledFrom([]string{"eHl6YWI=", "AHh5emFi", "AAB4eXph", "eHl6YQ==", "eAB5AHoAYQ", "xyz", "x\x00y\x00z\x00", "\x00x\x00y\x00z"}).Draw(t, "encoded")
		return ocsf.StringValue(s), s
	}
	s := drawText(t, valueChars, "text")
	if rapid.IntRange(0, 20).Draw(t, "broken") == 0 {
		s += "\xff" + s
	}
	if rapid.IntRange(0, 3).Draw(t, "x") == 0 {
		s = "x" + s
	}
	return ocsf.StringValue(s), s
}

func drawEvent(t *rapid.T, class *ocsf.Class, sparse bool) (*ocsf.Event, reference.Event) {
	ev := &ocsf.Event{Class: class.UID, Values: make([]ocsf.Value, len(class.Fields))}
	ref := reference.Event{Fields: map[string][]any{}}
	if sparse {
		ev.Set = []uint16{}
	}
	for i, f := range class.Fields {
		var v ocsf.Value
		switch rapid.IntRange(0, 9).Draw(t, "presence") {
		case 0, 1: // absent
			continue
		case 2:
			v = ocsf.Value{Kind: ocsf.Null}
			ref.Fields[f.Path] = []any{}
		case 3:
			var elements []ocsf.Value
			ref.Fields[f.Path] = []any{}
			for range rapid.IntRange(1, 3).Draw(t, "elements") {
				el, r := drawValue(t)
				elements = append(elements, el)
				ref.Fields[f.Path] = append(ref.Fields[f.Path], r)
			}
			ev.Lists = append(ev.Lists, elements)
			v = ocsf.Value{Kind: ocsf.List, Num: int64(len(ev.Lists) - 1)}
		default:
			el, r := drawValue(t)
			v, ref.Fields[f.Path] = el, []any{r}
		}
		if sparse {
			ev.Put(i, v)
		} else {
			ev.Values[i] = v
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "message") == 0 {
		ref.Message = "b" + drawText(t, valueChars, "message")
		ev.Message = ref.Message
	}
	return ev, ref
}

func sameVerdicts(t *rapid.T) {
	class := (&ocsf.Class{
		UID: 1, Name: "test", Open: true, Sources: []ocsf.Source{{LogSource: ocsf.LogSource{Product: "test"}, When: -1}},
		Fields: []ocsf.Field{{Path: "a"}, {Path: "b"}, {Path: "c"}},
	}).Index()
	var text []string
	for i := range rapid.IntRange(1, 6).Draw(t, "rules") {
		text = append(text, drawRule(t, i))
	}
	set, problems := sigma.Parse("random.yml", []byte(strings.Join(text, "---\n")))
	for _, p := range problems {
		if !p.Warning {
			t.Fatalf("the generator wrote a wrong rule: %v\n%s", p, strings.Join(text, "---\n"))
		}
	}
	engine, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{class}, Placeholders: lists})
	for _, p := range problems {
		t.Fatalf("the generator wrote a wrong rule: %v", p)
	}
	v := engine.NewEvaluator()
	for range rapid.IntRange(1, 4).Draw(t, "events") {
		ev, ref := drawEvent(t, class, rapid.Bool().Draw(t, "sparse"))
		var got []string
		v.Evaluate(ev, func(m *detect.Match) { got = append(got, m.Rule.ID) })
		var want []string
		for _, r := range set.Rules {
			if reference.Matches(&r.Detection, ref, lists) {
				want = append(want, r.ID)
			}
			x := detect.Explain(r, class, ev, lists)
			if x.Matched != reference.Matches(&r.Detection, ref, lists) {
				t.Fatalf("Explain says %v of %s on %+v", x.Matched, r.ID, ref)
			}
			if !x.Matched && len(x.Condition) == 0 {
				t.Fatalf("Explain does not say why %s fails on %+v", r.ID, ref)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("engine %v, reference %v\nevent %+v\n%s", got, want, ref, strings.Join(text, "---\n"))
		}
	}
}

func TestEngineAndReferenceAgree(t *testing.T) { rapid.Check(t, sameVerdicts) }

func FuzzEngineAndReferenceAgree(f *testing.F) { f.Fuzz(rapid.MakeFuzz(sameVerdicts)) }
