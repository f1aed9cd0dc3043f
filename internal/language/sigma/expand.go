package sigma

import "strings"

// maxExpansion bounds how many values one value with placeholders may become.
const maxExpansion = 10_000

// expand replaces each %name% of a value by each of the values its list holds.
// Whatever other modifiers say is applied afterwards, so that the values of a
// list may be encoded, may be address ranges, and may have wildcards.
func (r *resolver) expand(l Literal) ([]string, bool) {
	all := []string{""}
	extend := func(choices ...string) bool {
		if len(all)*len(choices) > maxExpansion {
			r.fail(l.Pos, "the placeholders of %q stand for more than %d values", l.Text, maxExpansion)
			return false
		}
		next := make([]string, 0, len(all)*len(choices))
		for _, head := range all {
			for _, tail := range choices {
				next = append(next, head+tail)
			}
		}
		all = next
		return true
	}
	for rest := l.Text; rest != ""; {
		start := strings.IndexByte(rest, '%')
		if start < 0 {
			extend(rest)
			break
		}
		if start > 0 && rest[start-1] == '\\' { // \% is a plain percent sign
			extend(rest[:start-1] + "%")
			rest = rest[start+1:]
			continue
		}
		size := strings.IndexByte(rest[start+1:], '%')
		if size <= 0 {
			extend(rest[:start+1])
			rest = rest[start+1:]
			continue
		}
		name := rest[start+1 : start+1+size]
		list, known := r.placeholders[name]
		if !known || len(list) == 0 {
			r.fail(l.Pos, "the placeholder %%%s%% has no list of values", name).Do = "give the list " + name + " at least one value, or remove the rule"
			r.problems[len(r.problems)-1].placeholder = true
			return nil, false
		}
		if !extend(rest[:start]) || !extend(list...) {
			return nil, false
		}
		rest = rest[start+1+size+1:]
	}
	return all, true
}
