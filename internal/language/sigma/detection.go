package sigma

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// detection reads the searches and the condition of a mapping. Keys in skip
// are something else.
func (r *reader) detection(n *yaml.Node, skip []string) Detection {
	var (
		d    Detection
		cond *yaml.Node
	)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		switch {
		case key.Value == "condition":
			cond = value
		case key.Value == "timeframe":
			r.report(problem(at(key), "a timeframe belongs to the aggregations of Sigma 1, which Sigma 2 does not have").
				do("write a correlation document"))
		case !slices.Contains(skip, key.Value):
			d.Searches = append(d.Searches, Search{key.Value, at(key), r.search(value)})
		}
	}
	if len(d.Searches) == 0 {
		r.report(problem(at(n), "there is no search to evaluate").do("add one, with a name of your choice"))
	}
	if cond == nil {
		r.report(problem(at(n), "there is no condition").do(`add "condition:" with the names of searches`))
		return d
	}
	d.Condition = r.condition(cond, d.Searches)
	return d
}

// search reads a search identifier: a mapping (all of its lines), a list of
// mappings (any of them), or keywords.
func (r *reader) search(n *yaml.Node) Node {
	switch n.Kind {
	case yaml.MappingNode:
		return r.mapping(n)
	case yaml.SequenceNode:
		return r.list(n)
	}
	return r.item("", n, at(n))
}

func (r *reader) mapping(n *yaml.Node) Node {
	if len(n.Content) == 0 {
		r.report(problem(at(n), "the search is empty").do("give it a field and a value, or remove it"))
	}
	group := Node{All: true}
	for i := 0; i+1 < len(n.Content); i += 2 {
		group.Kids = append(group.Kids, r.item(n.Content[i].Value, resolve(n.Content[i+1]), at(n.Content[i])))
	}
	if len(group.Kids) == 1 {
		return group.Kids[0]
	}
	return group
}

func (r *reader) list(n *yaml.Node) Node {
	if len(n.Content) == 0 {
		r.report(problem(at(n), "the list is empty").do("give it a value, or remove it"))
	}
	var (
		group    Node
		keywords = &Item{Pos: at(n)}
	)
	for _, kid := range n.Content {
		switch kid = resolve(kid); kid.Kind {
		case yaml.MappingNode:
			group.Kids = append(group.Kids, r.mapping(kid))
		case yaml.ScalarNode:
			keywords.Values = append(keywords.Values, literal(kid))
		default:
			r.report(problem(at(kid), "a list inside a list has no meaning here"))
		}
	}
	if len(keywords.Values) > 0 {
		r.checkItem(keywords)
		group.Kids = append(group.Kids, Node{Item: keywords})
	}
	if len(group.Kids) == 1 {
		return group.Kids[0]
	}
	return group
}

func (r *reader) item(key string, value *yaml.Node, pos Pos) Node {
	parts := strings.Split(key, "|")
	item := &Item{Field: strings.TrimSpace(parts[0]), Modifiers: parts[1:], Pos: pos}
	switch value.Kind {
	case yaml.ScalarNode:
		item.Values = []Literal{literal(value)}
	case yaml.SequenceNode:
		for _, kid := range value.Content {
			if kid = resolve(kid); kid.Kind != yaml.ScalarNode {
				r.report(problem(at(kid), "a value of a field must be plain text, a number, true, false or null").field(item.Field))
				return Node{Item: item}
			}
			item.Values = append(item.Values, literal(kid))
		}
		if len(item.Values) == 0 {
			r.report(problem(at(value), "the list of values is empty").field(item.Field).do("give it a value, or remove the field"))
			return Node{Item: item}
		}
	default:
		r.report(problem(at(value), "a value of a field must be plain text, a number, true, false or null").field(item.Field).
			do("a field of a field is written with a dot: parent.child"))
		return Node{Item: item}
	}
	r.checkItem(item)
	return Node{Item: item}
}

func literal(n *yaml.Node) Literal {
	l := Literal{Text: n.Value, Pos: at(n)}
	switch n.ShortTag() {
	case "!!int", "!!float":
		l.Kind = Number
	case "!!bool":
		l.Kind = Truth
	case "!!null":
		l.Kind, l.Text = Nothing, ""
	}
	return l
}

// checkItem resolves the item once without placeholders, so that whatever is
// wrong with its modifiers and values is known when it is read.
func (r *reader) checkItem(item *Item) {
	_, problems := item.Tests(nil)
	for i := range problems {
		if !problems[i].placeholder {
			r.report(&problems[i].Problem)
		}
	}
}
