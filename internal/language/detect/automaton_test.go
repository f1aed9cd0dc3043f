package detect

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

var automatonExpressions = []string{
	``, `a`, `^a`, `a$`, `^$`, `^a.*b$`, `(?m)^b$`, `(?s)a.b`, `a.b`, `(?i)sAk`, `\bab\b`, `\Bb`, `[^a]b`, `a{3,5}b`, `(a|b)+c`, `(?:ab)*$`,
	`\s[a-f0-9]{4}\s[a-f0-9]{2}`, `-(W|R)\s?(\s|"|')([0-9a-fA-F]{2}\s?){2,4}(\s|"|')`, `\w+` + "`" + `(\w+|-|.)`, `(a?){20}a{20}`, `x*`, `\d\D\s\S\w\W`, `[[:punct:]]`, `é`,
	`(?m)a$\nb`, `\Aa\z`, `a|bc|def`, `.{3}b`,
	`(?i)é+k`, `[à-ü]x`, `\pL\d`, `[^é]$`, `\x{FFFD}`, `(?i)ſ`, `[^\x00-\x7f]`, `é\b`, `世|界+`,
}

func sameAsRegexp(t *testing.T, expr, text string) {
	re, err := regexp.Compile(expr)
	if err != nil || len(expr) > 200 {
		return
	}
	want := re.MatchString(text)
	a := newAutomaton(re)
	room := newThreads(a.instructions())
	if got := a.find(text, &room); got != want {
		t.Errorf("automaton of %q finds %v in %q, regexp %v", expr, got, text, want)
	}
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		t.Fatal(err)
	}
	room = newThreads(len(prog.Inst))
	room.number = math.MaxUint32 - 1 // it comes round
	for range 2 {
		if got := room.find(prog, text); got != want {
			t.Errorf("threads of %q find %v in %q, regexp %v", expr, got, text, want)
		}
	}
}

func TestAutomatonFindsWhatRegexpFinds(t *testing.T) {
	texts := []string{"", "a", "b", "ab", "aab", "a\nb", "\nb\n", "b\n", "SAK", "ſak", "aaab", "aaaaaab", "cabc", "ab c", "c ab", " 12af 0b", ` -W "0a 0b"`, "x`y", strings.Repeat("a", 25), "1a !b.", "é", "aéb", "a\xffb", "def", "xyzb", "É\u212a", "èx", "é1", "é", "\xff", "世", "x界界", "aé b", "\xe4\xb8"}
	for _, expr := range automatonExpressions {
		for _, text := range texts {
			sameAsRegexp(t, expr, text)
		}
	}
}

func TestAutomatonIsBuiltForWhatRulesUse(t *testing.T) {
	for expr, want := range map[string]bool{
		`\s[a-fA-F0-9]{64}\s[a-fA-F0-9]{16}`: true,
		`(?i)invoke-\w+\s+`:                  true,
		`.{1000,}`:                           true,
		`(a|b)*a(a|b){12}`:                   false, // needs 2^12 states: threads run it
	} {
		a := newAutomaton(regexp.MustCompile(expr))
		if got := a.table != nil; got != want || got != (a.prog == nil) {
			t.Errorf("%q has a table: %v, want %v, and a program if not: %v", expr, got, want, a.prog != nil)
		}
	}
}

// What is too large even for threads is left to package regexp.
func TestAHugeExpressionIsFoundToo(t *testing.T) {
	a := newAutomaton(regexp.MustCompile(`^` + strings.Repeat(`a{1000}`, 40)))
	if a.prog != nil || a.table != nil {
		t.Error("threads would need much memory for it")
	}
	for n, want := range map[int]bool{39_999: false, 40_000: true} {
		if got := a.find(strings.Repeat("a", n), nil); got != want {
			t.Errorf("found in %d characters: %v", n, got)
		}
	}
}

// As SigmaHQ has them: too many states for a table.
var expressionsForThreads = []string{
	`(a|b)*a(a|b){12}`,
	`(?i)\.exe["']?\s+[^"]{0,64}faultsecure\.exe["']?\s+\d{2,10}`,
	`(?:[Pp]rogram[Dd]ata|\\[Aa]pp[Dd]ata\\(?:[Ll]ocal|[Rr]oaming))\\[^\\]{1,256}$`,
	`.{1000}.{1000,}`,
}

func TestMatchingWithThreadsAllocatesNothing(t *testing.T) {
	text := strings.Repeat(`C:\ProgramData\x.exe "y abab`, 100)
	for _, expr := range expressionsForThreads {
		a := newAutomaton(regexp.MustCompile(expr))
		room := newThreads(a.instructions())
		if n := testing.AllocsPerRun(10, func() { runtime.GC(); a.find(text, &room) }); n != 0 || a.table != nil {
			t.Errorf("%q: %v allocations, a table: %v", expr, n, a.table != nil)
		}
	}
}

// BenchmarkThreads collects garbage before each search, as a host does between
// two: what is pooled is gone then.
func BenchmarkThreads(b *testing.B) {
	text := strings.Repeat(`C:\ProgramData\x.exe "y abab`, 100)
	for i, expr := range expressionsForThreads {
		re := regexp.MustCompile(expr)
		a := newAutomaton(re)
		room := newThreads(a.instructions())
		for name, find := range map[string]func() bool{
			"threads": func() bool { return a.find(text, &room) },
			"regexp":  func() bool { return re.MatchString(text) },
		} {
			b.Run(fmt.Sprintf("%d/%s", i, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					runtime.GC()
					b.StartTimer()
					find()
				}
			})
		}
	}
}

func FuzzAutomatonFindsWhatRegexpFinds(f *testing.F) {
	for _, expr := range automatonExpressions {
		f.Add(expr, "aab b")
	}
	f.Fuzz(sameAsRegexp)
}

// What a regular expression is found in must have one of its literals, or the
// index would lose matches.
func FuzzRegexLiteralsAreNecessary(f *testing.F) {
	for _, expr := range automatonExpressions {
		f.Add(expr, "aab b")
		f.Add(expr, ` -W "0a 0b"`)
	}
	f.Fuzz(func(t *testing.T, expr, text string) {
		re, err := regexp.Compile(expr)
		if err != nil || len(expr) > 200 {
			return
		}
		lits, least := regexNeeds(expr)
		if !re.MatchString(text) {
			return
		}
		folded := fold(text)
		if len(folded) < least {
			t.Errorf("%q is found in %q, which has %d bytes folded; it says it needs %d", expr, text, len(folded), least)
		}
		if lits == nil {
			return
		}
		for _, l := range lits {
			if strings.Contains(folded, l) {
				return
			}
		}
		t.Errorf("%q is found in %q, which has none of %q", expr, text, lits)
	})
}

// Folding eight bytes at once must do what folding one by one does.
func FuzzFold(f *testing.F) {
	f.Add("ABCDEFGH@[`{éÉ\xff\x80")
	f.Add(strings.Repeat("Zz", 9) + "K")
	f.Fuzz(func(t *testing.T, s string) {
		var want []byte
		for i, r := range s {
			if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
				want = append(want, s[i])
			} else {
				want = utf8.AppendRune(want, leastOf(r))
			}
		}
		if got := string(appendFold(nil, s)); got != string(want) {
			t.Errorf("fold of %q is %q, one by one %q", s, got, want)
		}
	})
}

// The index must find exactly the literals that are there.
func FuzzGramsFindLiterals(f *testing.F) {
	f.Add("abcd,bc,a,abcdabcd,cdab", "xabcdabcdx")
	f.Add("a,,b", "")
	f.Add("abcdefg,hijklmnopqr,bcdefgh", "xyabcdefghijklmnopqrst")
	f.Fuzz(func(t *testing.T, list, text string) {
		lits := strings.Split(list, ",")
		if len(lits) > 100 {
			return
		}
		var inside []gramLiteral
		var anchored []anchorLiteral
		for i, l := range lits {
			inside = append(inside, gramLiteral{l, i})
			anchored = append(anchored, anchorLiteral{l, [...]atomKind{whole, start, end}[i%3], i})
		}
		check := func(what string, found []int32, want func(i int) bool) {
			have := map[int32]bool{}
			for _, id := range found {
				have[id] = true
			}
			for i, l := range lits {
				if have[int32(i)] != want(i) {
					t.Errorf("%s: %q in %q: found %v", what, l, text, have[int32(i)])
				}
			}
		}
		g := newGrams(inside, nil)
		check("inside", g.find([]byte(text), nil), func(i int) bool { return strings.Contains(text, lits[i]) })
		any := false
		for _, l := range lits {
			any = any || strings.Contains(text, l)
		}
		if g.any([]byte(text)) != any {
			t.Errorf("any of %q in %q: %v", lits, text, !any)
		}
		whole := newAnchors(anchored)
		check("anchored", whole.find(padded([]byte(text)), nil), func(i int) bool {
			switch i % 3 {
			case 0:
				return text == lits[i]
			case 1:
				return strings.HasPrefix(text, lits[i])
			}
			return strings.HasSuffix(text, lits[i])
		})
	})
}
