package sensor

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"
)

// The bounds of the table of texts.
const (
	maxTexts     = 8192
	maxTextBytes = 1 << 20
)

// texts turns bytes into strings, the same bytes into the same string: paths,
// users and command lines come again and again, and must not be allocated each
// time. When it is full it starts over; strings in use live on.
type texts struct {
	seen  map[string]string
	bytes int
}

func (t *texts) of(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := t.seen[string(b)]; ok { // no allocation: the compiler sees it
		return s
	}
	if t.seen == nil || len(t.seen) >= maxTexts || t.bytes+len(b) > maxTextBytes {
		t.seen, t.bytes = make(map[string]string, 256), 0
	}
	s := string(b)
	t.seen[s] = s
	t.bytes += len(s)
	return s
}

// user is one account: its name, and its number as text.
type user struct{ name, uid string }

// users names accounts from /etc/passwd. It looks at the file again when it has
// changed, at most every few seconds. Accounts of directories (LDAP and the
// like) keep their number as name: asking for them could block on the network.
type users struct {
	file     string
	byID     map[uint32]user
	looked   time.Duration
	modified time.Time
}

const lookAgain = 10 * time.Second

// of returns the account with id uid. now is since boot.
func (u *users) of(uid uint32, now time.Duration) user {
	if u.byID == nil || now-u.looked > lookAgain || now < u.looked {
		u.looked = now
		u.read()
	}
	a, ok := u.byID[uid]
	if !ok {
		n := strconv.FormatUint(uint64(uid), 10)
		a = user{name: n, uid: n}
		if len(u.byID) < maxTexts {
			u.byID[uid] = a
		}
	}
	return a
}

func (u *users) read() {
	info, err := os.Stat(u.file)
	if err == nil && u.byID != nil && info.ModTime().Equal(u.modified) {
		return
	}
	u.byID = map[uint32]user{}
	f, err := os.Open(u.file)
	if err != nil {
		return // every account keeps its number
	}
	defer f.Close()
	if info != nil {
		u.modified = info.ModTime()
	}
	for s := bufio.NewScanner(f); s.Scan() && len(u.byID) < maxTexts; {
		name, rest, _ := strings.Cut(s.Text(), ":")
		_, rest, _ = strings.Cut(rest, ":")
		id, _, ok := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(id, 10, 32)
		if !ok || err != nil || name == "" {
			continue
		}
		if _, twice := u.byID[uint32(n)]; !twice { // the first name of an id counts, as in getpwuid
			u.byID[uint32(n)] = user{name: name, uid: id}
		}
	}
}
