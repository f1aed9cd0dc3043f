package detect

// trie finds which of many literals a text starts with (or, walked from the
// end, ends with). A walk stops at the first byte that no literal has.
type trie struct {
	backward bool
	slots    []trieSlot // open addressing
	nodes    []trieNode
}

type trieSlot struct {
	key  uint32 // node<<8 | byte
	next uint32 // node<<1, and 1 if literals end there; 0 is empty: no edge leads to the root
}

// trieNode says which literals end at a node.
type trieNode struct {
	here  []int32 // whatever follows
	whole []int32 // if nothing follows: the text is the literal
}

type trieLiteral struct {
	lit   string
	whole bool
	id    int
}

func newTrie(lits []trieLiteral, backward bool) *trie {
	if len(lits) == 0 {
		return nil
	}
	t := &trie{backward: backward, nodes: make([]trieNode, 1)}
	next := map[uint32]uint32{}
	var keys []uint32 // of next, in the order they came
	for _, l := range lits {
		node := uint32(0)
		for i := range len(l.lit) {
			c := l.lit[i]
			if backward {
				c = l.lit[len(l.lit)-1-i]
			}
			key := node<<8 | uint32(c)
			if next[key] == 0 {
				next[key] = uint32(len(t.nodes))
				keys = append(keys, key)
				t.nodes = append(t.nodes, trieNode{})
			}
			node = next[key]
		}
		if n := &t.nodes[node]; l.whole {
			n.whole = append(n.whole, int32(l.id))
		} else {
			n.here = append(n.here, int32(l.id))
		}
	}
	size := 4
	for size < 2*len(keys) {
		size *= 2
	}
	t.slots = make([]trieSlot, size)
	for _, key := range keys {
		i := trieHash(key)
		for t.slots[i&uint32(size-1)].next != 0 {
			i++
		}
		n := t.nodes[next[key]]
		ends := uint32(min(len(n.here)+len(n.whole), 1))
		t.slots[i&uint32(size-1)] = trieSlot{key, next[key]<<1 | ends}
	}
	return t
}

func trieHash(key uint32) uint32 { h := key * windowHash; return h ^ h>>15 }

// find appends the numbers of the literals that fit.
func (t *trie) find(text []byte, found []int32) []int32 {
	found = append(found, t.nodes[0].here...)
	node, mask := uint32(0), uint32(len(t.slots)-1)
	for i := range len(text) {
		c := text[i]
		if t.backward {
			c = text[len(text)-1-i]
		}
		key := node<<8 | uint32(c)
		at := trieHash(key)
		slot := t.slots[at&mask]
		for slot.key != key && slot.next != 0 {
			at++
			slot = t.slots[at&mask]
		}
		if slot.next == 0 {
			return found
		}
		node = slot.next >> 1
		if slot.next&1 != 0 {
			found = append(found, t.nodes[node].here...)
		}
	}
	return append(found, t.nodes[node].whole...)
}
