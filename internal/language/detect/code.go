package detect

// code is the trees of a program as tests, each of which says where to go on. A
// tree is laid out backwards: all but groups that are counted go on before the
// test, never behind it.
type code struct {
	steps []step
	args  []int32
}

type step struct {
	yes, no int32 // the next step, or accept or reject
	first   int32 // what is tested, or where in args that begins
	count   uint16
	op      stepOp
}

type stepOp uint8

const (
	predicateHolds  stepOp = iota
	predicateMarked        // the index marks it if it holds
	atomFound
	oneAtomFound // of count in args
	someHold     // of count trees, whose first steps are in args; before them, how many have to
)

const (
	accept int32 = -1 - iota
	reject
)

// most is how many args a step can have.
const most = 1<<16 - 1

// add lays a tree out that goes on at yes if it holds, else at no, and returns
// its first step. What the index knows of a predicate is asked instead of it, or
// before.
func (c *code) add(t *tree, known []answers, yes, no int32) int32 {
	switch t.op {
	case leaf:
		return c.addLeaf(t.pred, &known[t.pred], yes, no)
	case and:
		for i := len(t.kids) - 1; i >= 0; i-- {
			yes = c.add(t.kids[i], known, yes, no)
		}
		return yes
	case or:
		for i := len(t.kids) - 1; i >= 0; i-- {
			no = c.add(t.kids[i], known, yes, no)
		}
		return no
	case not:
		return c.add(t.kids[0], known, no, yes)
	case atLeast:
		args := []int32{int32(t.n)}
		for _, kid := range t.kids {
			args = append(args, c.add(kid, known, accept, reject))
		}
		return c.put(someHold, args, yes, no)
	case always:
		return yes
	}
	return no
}

func (c *code) addLeaf(pred int, k *answers, yes, no int32) int32 {
	switch {
	case k.marked:
		return c.put(predicateMarked, []int32{int32(pred)}, yes, no)
	case !k.exact:
		yes = c.put(predicateHolds, []int32{int32(pred)}, yes, no)
		if k.atoms == nil {
			return yes
		}
	}
	for atoms := k.atoms; len(atoms) > 0; {
		n := min(len(atoms), most)
		no = c.put(oneAtomFound, atoms[:n], yes, no)
		atoms = atoms[n:]
	}
	return no
}

func (c *code) put(op stepOp, args []int32, yes, no int32) int32 {
	t := step{yes: yes, no: no, op: op}
	switch {
	case op == oneAtomFound && len(args) == 1:
		t.op, t.first = atomFound, args[0]
	case op == predicateHolds || op == predicateMarked:
		t.first = args[0]
	default:
		t.first, t.count = int32(len(c.args)), uint16(len(args))
		c.args = append(c.args, args...)
	}
	c.steps = append(c.steps, t)
	return int32(len(c.steps) - 1)
}

// eval evaluates on the event of s the tree that begins at a step.
func (c *code) eval(s *scratch, at int32) bool {
	for at >= 0 {
		t := &c.steps[at]
		holds := false
		switch t.op {
		case atomFound:
			holds = s.hit[t.first] == s.stamp
		case predicateHolds:
			holds = s.holds(t.first)
		case oneAtomFound:
			holds = s.foundAny(c.args[t.first : t.first+int32(t.count)])
		case predicateMarked:
			holds = s.truth[t.first] == s.stamp<<1|1
		case someHold:
			holds = c.some(s, c.args[t.first:t.first+int32(t.count)])
		}
		if holds {
			at = t.yes
		} else {
			at = t.no
		}
	}
	return at == accept
}

func (c *code) some(s *scratch, args []int32) bool {
	missing := args[0]
	for _, first := range args[1:] {
		if c.eval(s, first) {
			if missing--; missing == 0 {
				return true
			}
		}
	}
	return false
}
