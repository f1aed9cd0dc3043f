package sigma

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// blockDocuments reads the part of YAML that nearly all rules are written in:
// mappings and lists by indentation, texts of one line, and literal blocks. It
// is several times as fast as the YAML library, which reads everything else:
// where it meets anything that is not plainly of this kind, right or wrong, it
// says so, and nothing it has read counts. What it does read is what the library
// would have read, place by place, but for comments.
func blockDocuments(data []byte) ([]*yaml.Node, bool) {
	b := blockReader{src: string(data)}
	if !b.readable() {
		return nil, false
	}
	var docs []*yaml.Node
	b.next()
	if b.indent == marker {
		b.next()
	}
	for {
		if b.indent != 0 || len(docs) == maxDocuments {
			return nil, false
		}
		doc := b.mapping(0, maxDepth)
		if doc == nil {
			return nil, false
		}
		docs = append(docs, doc)
		switch b.indent {
		case end:
			return docs, true
		case marker:
			b.next()
		}
	}
}

// blockReader stands at a line that is neither empty nor a comment. Its methods
// leave it at the first line they do not read, and return nil for what they
// leave to the library.
type blockReader struct {
	src    string
	rest   int // where the next line starts
	line   int // counts from 1
	text   string
	indent int // of text; or marker, or end
	room   []yaml.Node
}

// longestKey is a little less than what the library takes.
const longestKey = 1000

// What stands in place of an indentation: both end all blocks.
const (
	marker = -1 // the line separates two documents
	end    = -2 // there is no line left
)

// readable says whether the file has no characters but those that stand for
// themselves, and line feeds.
func (b *blockReader) readable() bool {
	for i := 0; i < len(b.src); {
		if c := b.src[i]; c < utf8.RuneSelf {
			if c < ' ' && c != '\n' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(b.src[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < 0xa0, r == '\u2028', r == '\u2029', r == '\ufeff', r == '\ufffe', r == '\uffff':
			return false
		}
		i += size
	}
	return true
}

func (b *blockReader) next() {
	for b.rest < len(b.src) {
		line, _, _ := strings.Cut(b.src[b.rest:], "\n")
		b.rest += len(line) + 1
		b.line++
		indent := spaces(line)
		if indent == len(line) || line[indent] == '#' {
			continue
		}
		b.text, b.indent = line, indent
		if line == "---" {
			b.indent = marker
		}
		return
	}
	b.text, b.indent = "", end
}

func spaces(s string) int {
	n := 0
	for n < len(s) && s[n] == ' ' {
		n++
	}
	return n
}

func (b *blockReader) add(n yaml.Node, column int) *yaml.Node {
	if len(b.room) == cap(b.room) {
		b.room = make([]yaml.Node, 0, 64)
	}
	n.Line, n.Column = b.line, utf8.RuneCountInString(b.text[:column])+1
	b.room = append(b.room, n)
	return &b.room[len(b.room)-1]
}

// mapping reads a mapping whose keys start at a column, the first of them in
// this line.
func (b *blockReader) mapping(column, depth int) *yaml.Node {
	if depth == 0 {
		return nil
	}
	m := b.add(yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: make([]*yaml.Node, 0, 8)}, column)
	for {
		size := keySize(b.text[column:])
		if size <= 0 || size > longestKey || b.text[column+size-1] == ' ' {
			return nil
		}
		if c := b.text[column]; c == '-' || c == '.' { // an item, or a marker
			return nil
		}
		key := b.scalar(b.text[column:column+size], column)
		if key == nil {
			return nil
		}
		value := b.value(column, column+size+1, depth)
		if value == nil {
			return nil
		}
		m.Content = append(m.Content, key, value)
		switch {
		case b.indent < column:
			return m
		case b.indent > column: // the value goes on
			return nil
		}
	}
}

// value reads what stands behind a key and its colon.
func (b *blockReader) value(column, from, depth int) *yaml.Node {
	from += spaces(b.text[from:])
	if from < len(b.text) && b.text[from] != '#' {
		return b.inline(column, from)
	}
	b.next()
	switch {
	case b.indent >= column && b.atItem():
		return b.list(b.indent, depth-1)
	case b.indent > column:
		return b.mapping(b.indent, depth-1)
	}
	return nil
}

func (b *blockReader) atItem() bool { return strings.HasPrefix(b.text[b.indent:], "- ") }

// list reads a list whose dashes stand in a column.
func (b *blockReader) list(column, depth int) *yaml.Node {
	if depth == 0 {
		return nil
	}
	l := b.add(yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: make([]*yaml.Node, 0, 4)}, column)
	for {
		from := column + 1 + spaces(b.text[column+1:])
		if from == len(b.text) || b.text[from] == '#' {
			return nil
		}
		var item *yaml.Node
		if keySize(b.text[from:]) >= 0 {
			item = b.mapping(from, depth-1)
		} else {
			item = b.inline(column, from)
		}
		if item == nil {
			return nil
		}
		l.Content = append(l.Content, item)
		switch {
		case b.indent < column || b.indent == column && !b.atItem():
			return l
		case b.indent > column:
			return nil
		}
	}
}

// inline reads a text that starts in this line; column is that of the block it
// belongs to.
func (b *blockReader) inline(column, from int) *yaml.Node {
	text := b.text[from:]
	size := len(text)
	switch text[0] {
	case '|':
		return b.literal(column, from)
	case '\'', '"':
		if size = quotedSize(text); size < 0 {
			return nil
		}
		behind := text[size:]
		if n := spaces(behind); n < len(behind) && (n == 0 || behind[n] != '#') {
			return nil
		}
	default:
		if comment := strings.Index(text, " #"); comment >= 0 {
			size = comment
		}
		if keySize(text) >= 0 {
			return nil
		}
	}
	n := b.scalar(strings.TrimRight(text[:size], " "), from)
	b.next()
	return n
}

// literal reads a block behind a "|", which is the last in this line.
func (b *blockReader) literal(column, from int) *yaml.Node {
	if strings.TrimRight(b.text[from:], " ") != "|" {
		return nil
	}
	n := b.add(yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle}, from)
	var (
		value  strings.Builder
		indent int // of the block
		empty  int // lines since the last that is not
	)
	for b.rest < len(b.src) {
		line, _, ended := strings.Cut(b.src[b.rest:], "\n")
		i := spaces(line)
		switch {
		case !ended || i == len(line) && (indent == 0 || i > indent):
			return nil
		case i == len(line):
			empty++
		case indent == 0 && i <= column:
			return nil
		case i < indent:
			n.Value = value.String()
			b.next()
			return n
		default:
			if indent == 0 {
				indent = i
			}
			for ; empty > 0; empty-- {
				value.WriteByte('\n')
			}
			value.WriteString(line[indent:])
			value.WriteByte('\n')
		}
		b.rest += len(line) + 1
		b.line++
	}
	n.Value = value.String()
	b.next()
	return n
}

// keySize returns the size of the key that text starts with, the colon not
// included, or -1.
func keySize(text string) int {
	colonAt := func(i int) bool { return i < len(text) && text[i] == ':' && (i+1 == len(text) || text[i+1] == ' ') }
	if text[0] == '\'' || text[0] == '"' {
		if size := quotedSize(text); size >= 0 && colonAt(size) {
			return size
		}
		return -1
	}
	for i := range len(text) {
		if colonAt(i) {
			return i
		}
		if text[i] == '#' && i > 0 && text[i-1] == ' ' {
			return -1
		}
	}
	return -1
}

// quotedSize returns the size of the quoted text that text starts with, or -1.
func quotedSize(text string) int {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}

// scalar makes a node of a text as written.
func (b *blockReader) scalar(written string, column int) *yaml.Node {
	n := yaml.Node{Kind: yaml.ScalarNode, Value: written} // the tag follows from the text
	switch c := written[0]; {
	case c == '\'':
		n.Tag, n.Style, n.Value = "!!str", yaml.SingleQuotedStyle, strings.ReplaceAll(written[1:len(written)-1], "''", "'")
	case c == '"':
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, written[1:len(written)-1]
		if strings.IndexByte(n.Value, '\\') >= 0 {
			return nil
		}
	case strings.IndexByte(":,[]{}?#&*!|>%@`", c) >= 0, c == '-' && (len(written) == 1 || written[1] == ' '):
		return nil
	}
	return b.add(n, column)
}
