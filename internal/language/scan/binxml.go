package scan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
)

// binXML reads Microsoft's binary XML. Everything is bounded: positions by the
// chunk, nesting and nodes by constants, and no offset is followed twice deeper
// than the nesting allows.
type binXML struct {
	chunk []byte
	end   int // of the record
	nodes int // that may still be made
}

const (
	mostBinXMLNodes = 20_000
	deepestBinXML   = 48
)

// xmlNode is an element: its attributes, its text, and its kids.
type xmlNode struct {
	name  string
	attrs map[string]any
	text  strings.Builder
	kids  []*xmlNode
}

// substitution is a value of a template instance.
type substitution struct {
	kind byte
	at   int
	size int
}

var (
	errBinXML     = errors.New("the binary XML of an EVTX record is damaged")
	errBinXMLSize = errors.New("the binary XML of an EVTX record is nested too deep or has too many nodes")
)

// cursor reads little-endian values; after the first read beyond the end all
// are zero and bad is set.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || c.at < 0 || c.at+n > len(c.b) || c.bad {
		c.bad = true
		return make([]byte, min(max(n, 0), 16))
	}
	b := c.b[c.at : c.at+n]
	c.at += n
	return b
}

func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.LittleEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }

func (c *cursor) utf16(chars int) string {
	if b := c.take(2 * chars); !c.bad {
		return utf16Text(b)
	}
	return ""
}

func utf16Text(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}

// fragment reads tokens from at on into node, until the element or the data
// ends.
func (x *binXML) fragment(at int, node *xmlNode, values []substitution, depth int) error {
	c := &cursor{b: x.chunk[:x.end], at: at}
	return x.tokens(c, node, values, depth)
}

func (x *binXML) tokens(c *cursor, node *xmlNode, values []substitution, depth int) error {
	if depth > deepestBinXML {
		return errBinXMLSize
	}
	for !c.bad && c.at < len(c.b) {
		if x.nodes--; x.nodes < 0 {
			return errBinXMLSize
		}
		switch token := c.u8(); token &^ 0x40 {
		case 0x00, 0x04: // end of the fragment, end of the element
			return nil
		case 0x0f: // fragment header
			c.take(3)
		case 0x01: // element
			if err := x.element(c, token, node, values, depth); err != nil {
				return err
			}
		case 0x05: // value
			node.text.WriteString(x.literal(c))
		case 0x07: // CDATA
			node.text.WriteString(c.utf16(int(c.u16())))
		case 0x08: // character
			node.text.WriteRune(rune(c.u16()))
		case 0x09: // entity
			node.text.WriteString(entity(x.name(c)))
		case 0x0a: // processing instruction
			x.name(c)
		case 0x0b:
			c.utf16(int(c.u16()))
		case 0x0c: // template instance
			if err := x.template(c, node, depth); err != nil {
				return err
			}
		case 0x0d, 0x0e: // substitution
			index := int(c.u16())
			c.u8()
			if err := x.substitute(node, values, index, depth); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: token 0x%02x", errBinXML, token)
		}
	}
	if c.bad {
		return errBinXML
	}
	return nil
}

func entity(name string) string {
	switch name {
	case "amp":
		return "&"
	case "lt":
		return "<"
	case "gt":
		return ">"
	case "quot":
		return `"`
	case "apos":
		return "'"
	}
	return ""
}

// name reads an offset of a name; a name that is used for the first time stands
// right there.
func (x *binXML) name(c *cursor) string {
	offset := int(c.u32())
	n := &cursor{b: x.chunk, at: offset}
	n.take(6) // link to the next name, hash
	chars := int(n.u16())
	name := n.utf16(chars)
	n.take(2)
	if n.bad {
		c.bad = true
	} else if offset == c.at {
		c.at = n.at
	}
	return name
}

func (x *binXML) element(c *cursor, token byte, parent *xmlNode, values []substitution, depth int) error {
	c.take(6) // dependency, size
	node := &xmlNode{name: x.name(c)}
	parent.kids = append(parent.kids, node)
	if token&0x40 != 0 {
		c.u32() // size of the attributes
	}
	for !c.bad {
		switch token := c.u8(); token &^ 0x40 {
		case 0x06: // attribute
			if x.nodes--; x.nodes < 0 {
				return errBinXMLSize
			}
			if err := x.attribute(c, node, values, depth); err != nil {
				return err
			}
		case 0x02: // end of the start tag
			return x.tokens(c, node, values, depth+1)
		case 0x03: // empty element
			return nil
		default:
			return fmt.Errorf("%w: token 0x%02x in a start tag", errBinXML, token)
		}
	}
	return errBinXML
}

// attribute reads a name and the values that follow it.
func (x *binXML) attribute(c *cursor, node *xmlNode, values []substitution, depth int) error {
	name := x.name(c)
	value := &xmlNode{}
	for !c.bad && c.at < len(c.b) {
		switch c.b[c.at] &^ 0x40 {
		case 0x05:
			c.u8()
			value.text.WriteString(x.literal(c))
			continue
		case 0x08:
			c.u8()
			value.text.WriteRune(rune(c.u16()))
			continue
		case 0x09:
			c.u8()
			value.text.WriteString(entity(x.name(c)))
			continue
		case 0x0d, 0x0e:
			c.u8()
			index := int(c.u16())
			c.u8()
			if err := x.substitute(value, values, index, depth+1); err != nil {
				return err
			}
			continue
		}
		break
	}
	if value.text.Len() == 0 {
		return nil // optional, and not given
	}
	if node.attrs == nil {
		node.attrs = map[string]any{}
	}
	node.attrs[name] = value.text.String()
	return nil
}

// literal reads a value token's text.
func (x *binXML) literal(c *cursor) string {
	if kind := c.u8(); kind != 0x01 {
		c.bad = true
		return ""
	}
	return c.utf16(int(c.u16()))
}

// template reads an instance: which definition, and the values for it.
func (x *binXML) template(c *cursor, node *xmlNode, depth int) error {
	c.take(5) // version, id
	offset := int(c.u32())
	def := &cursor{b: x.chunk, at: offset}
	def.take(20) // link to the next definition, GUID
	size := int(def.u32())
	start := def.at
	def.take(size)
	if def.bad {
		return errBinXML
	}
	if offset == c.at { // defined right here
		c.at = def.at
	}
	count := int(c.u32())
	if count > mostFields {
		return errBinXMLSize
	}
	values := make([]substitution, 0, min(count, 256))
	for range count {
		if c.bad {
			return errBinXML
		}
		size := int(c.u16())
		values = append(values, substitution{kind: c.u8(), size: size})
		c.u8()
	}
	for i := range values {
		values[i].at = c.at
		c.take(values[i].size)
	}
	if c.bad {
		return errBinXML
	}
	body := &cursor{b: x.chunk[:start+size], at: start}
	return x.tokens(body, node, values, depth+1)
}

// substitute writes a value into node: as text, or if it is binary XML itself
// as what it holds.
func (x *binXML) substitute(node *xmlNode, values []substitution, index, depth int) error {
	if index >= len(values) {
		return fmt.Errorf("%w: there is no value %d", errBinXML, index)
	}
	v := values[index]
	if v.kind == 0x21 {
		inner := &cursor{b: x.chunk[:v.at+v.size], at: v.at}
		return x.tokens(inner, node, nil, depth+1)
	}
	node.text.WriteString(valueText(v.kind, x.chunk[v.at:v.at+v.size]))
	return nil
}

// valueText writes a typed value as Windows' own XML view does.
func valueText(kind byte, b []byte) string {
	if kind&0x80 != 0 {
		if kind == 0x81 { // strings, each with a NUL at its end
			return strings.ReplaceAll(utf16Text(b), "\x00", ", ")
		}
		return fmt.Sprintf("%X", b)
	}
	size := map[byte]int{3: 1, 4: 1, 5: 2, 6: 2, 7: 4, 8: 4, 9: 8, 10: 8, 11: 4, 12: 8, 13: 4, 15: 16, 17: 8, 18: 16, 19: 8, 20: 4, 21: 8}[kind]
	if len(b) < size || len(b) == 0 {
		return ""
	}
	le := binary.LittleEndian
	switch kind {
	case 0x01:
		return utf16Text(b)
	case 0x02:
		return strings.TrimRight(string(b), "\x00")
	case 0x03:
		return strconv.Itoa(int(int8(b[0])))
	case 0x04:
		return strconv.Itoa(int(b[0]))
	case 0x05:
		return strconv.Itoa(int(int16(le.Uint16(b))))
	case 0x06:
		return strconv.Itoa(int(le.Uint16(b)))
	case 0x07:
		return strconv.Itoa(int(int32(le.Uint32(b))))
	case 0x08:
		return strconv.FormatUint(uint64(le.Uint32(b)), 10)
	case 0x09:
		return strconv.FormatInt(int64(le.Uint64(b)), 10)
	case 0x0a:
		return strconv.FormatUint(le.Uint64(b), 10)
	case 0x0b:
		return strconv.FormatFloat(float64(math.Float32frombits(le.Uint32(b))), 'g', -1, 32)
	case 0x0c:
		return strconv.FormatFloat(math.Float64frombits(le.Uint64(b)), 'g', -1, 64)
	case 0x0d:
		return strconv.FormatBool(le.Uint32(b) != 0)
	case 0x0f:
		return fmt.Sprintf("{%08X-%04X-%04X-%04X-%X}", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
	case 0x11:
		return fileTime(le.Uint64(b)).Format("2006-01-02T15:04:05.0000000Z")
	case 0x12:
		return fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[6:]), le.Uint16(b[8:]), le.Uint16(b[10:]), le.Uint16(b[12:]), le.Uint16(b[14:]))
	case 0x13:
		return sidText(b)
	case 0x10, 0x14, 0x15:
		var n uint64
		for i := min(len(b), 8) - 1; i >= 0; i-- {
			n = n<<8 | uint64(b[i])
		}
		return "0x" + strconv.FormatUint(n, 16)
	case 0x0e:
		return fmt.Sprintf("%X", b)
	}
	return ""
}

// sidText writes a security identifier, S-1-5-18.
func sidText(b []byte) string {
	var authority uint64
	for _, c := range b[2:8] {
		authority = authority<<8 | uint64(c)
	}
	s := fmt.Sprintf("S-%d-%d", b[0], authority)
	for i := 8; i+4 <= len(b) && (i-8)/4 < int(b[1]); i += 4 {
		s += "-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[i:])), 10)
	}
	return s
}

// object is the node as JSON tools write events, for windows.
func (n *xmlNode) object() any {
	if len(n.kids) == 0 && n.attrs == nil {
		return n.text.String()
	}
	o := map[string]any{}
	if n.attrs != nil {
		o["#attributes"] = n.attrs
	}
	if n.text.Len() > 0 || n.name == "Data" {
		o["#text"] = n.text.String()
	}
	for _, kid := range n.kids {
		list, _ := o[kid.name].([]any)
		switch old := o[kid.name]; {
		case old == nil && kid.name != "Data":
			o[kid.name] = kid.object()
		case old == nil:
			o[kid.name] = []any{kid.object()}
		case list == nil:
			o[kid.name] = []any{old, kid.object()}
		default:
			o[kid.name] = append(list, kid.object())
		}
	}
	return o
}
