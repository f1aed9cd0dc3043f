package lifeline

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// maxSkip bounds how much of an overlong line is read in search of its end.
const maxSkip = 1 << 20

// ErrBroken ends a conversation: the other side has written more than maxSkip
// bytes without a newline, and nothing it says from here on can be trusted to
// begin where a line begins.
var ErrBroken = errors.New("lifeline: no end of line")

// Reader reads one side's lines. It belongs to one goroutine.
type Reader struct {
	b *bufio.Reader
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{b: bufio.NewReaderSize(r, MaxLine)}
}

// Report reads the next report. An error of kind Invalid concerns that line
// alone, and the next call reads the line after it; any other error is the end.
func (r *Reader) Report() (Report, error) {
	var m Report
	line, err := r.line()
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return Report{}, malformed(err)
	}
	if err := m.Check(); err != nil {
		return Report{}, err
	}
	return m, nil
}

// Order reads the next order, as Report does.
func (r *Reader) Order() (Order, error) {
	var m Order
	line, err := r.line()
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return Order{}, malformed(err)
	}
	if err := m.Check(); err != nil {
		return Order{}, err
	}
	return m, nil
}

func (r *Reader) line() ([]byte, error) {
	line, err := r.b.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err // a last line without its newline was cut short: not a line
	}
	for skipped := len(line); skipped < maxSkip; skipped += len(line) {
		line, err = r.b.ReadSlice('\n')
		switch {
		case err == nil:
			return nil, invalid("line", "longer than 4 KiB")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
	return nil, ErrBroken
}

// malformed drops the quoted input that some JSON errors carry.
func malformed(err error) error {
	what := "not the JSON of a message"
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		what += ": " + typ.Field + " has the wrong type"
	}
	return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: "lifeline"}
}

// WriteReport writes one report as one line in one call of Write.
func WriteReport(w io.Writer, m Report) error {
	if err := m.Check(); err != nil {
		return err
	}
	return write(w, m)
}

// WriteOrder writes one order as one line in one call of Write. A reason is cut
// and a status loses shunned digests, oldest first, as the bounds demand.
func WriteOrder(w io.Writer, m Order) error {
	if err := m.Check(); err != nil {
		return err
	}
	m.Reason = cut(m.Reason)
	if m.Status == nil {
		return write(w, m)
	}
	s := *m.Status
	s.Reason = cut(s.Reason)
	m.Status = &s
	if n := len(s.Shunned); n > MaxShunned {
		s.Shunned, s.ShunnedMore = s.Shunned[:MaxShunned], s.ShunnedMore+n-MaxShunned
	}
	for {
		err := write(w, m)
		if !errors.Is(err, errTooLong) || len(s.Shunned) == 0 {
			return err
		}
		s.Shunned, s.ShunnedMore = s.Shunned[:len(s.Shunned)-1], s.ShunnedMore+1
	}
}

var errTooLong = errors.New("lifeline: a message longer than 4 KiB")

func write(w io.Writer, m any) error {
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(m); err != nil {
		return err
	}
	if line.Len() > MaxLine {
		return errTooLong
	}
	_, err := w.Write(line.Bytes())
	return err
}

func cut(s string) string {
	if len(s) > MaxReason {
		s = s[:MaxReason]
	}
	return strings.ToValidUTF8(s, "")
}
