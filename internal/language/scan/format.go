package scan

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"

	"github.com/holdfast-security/holdfast"
)

// format is a way files are written.
type format struct {
	name   string
	decode func(d *decoding, emit func(*Record) error) error
}

// decoding is one file being read.
type decoding struct {
	in  *bufio.Reader
	bad func(line int, err error) // a record that cannot be read
}

var (
	auditLine   = regexp.MustCompile(`^(node=\S+ )?type=[A-Z0-9_\[\]]+ msg=audit\(`)
	journalLine = regexp.MustCompile(`^(__CURSOR|__REALTIME_TIMESTAMP|_BOOT_ID|_TRANSPORT)=`)
)

// formatOf recognises a file by how it starts.
func formatOf(head []byte) format {
	if bytes.HasPrefix(head, []byte("ElfFile\x00")) {
		return format{"evtx", decodeEVTX}
	}
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	start := bytes.TrimLeft(head, " \t\r\n")
	switch {
	case len(start) > 0 && (start[0] == '{' || start[0] == '['):
		return format{"json", decodeJSON}
	case auditLine.Match(start):
		return format{"auditd", decodeAudit}
	case journalLine.Match(start):
		return format{"journal", decodeJournal}
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) || bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) || bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")) {
		return format{"compressed", unreadable("the file is compressed", "unpack it, or pipe it: zcat FILE | holdfast scan … /dev/stdin")}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return format{"binary", unreadable("the file is not text, and no EVTX", "give JSON, EVTX, auditd, syslog or journal exports")}
	}
	return format{"syslog", decodeSyslog}
}

// unreadable is the format of a file in which there is nothing to scan.
func unreadable(what, do string) func(*decoding, func(*Record) error) error {
	return func(*decoding, func(*Record) error) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: what, Do: do}
	}
}

// longestLine bounds a line; what is longer is skipped and counted as bad.
const longestLine = 16 << 20

var errLongLine = errors.New("the line is longer than 16 MiB")

// lines calls each for every line, without its end. The slice is valid during
// the call only.
func (d *decoding) lines(each func(n int, line []byte) error) error {
	var buf []byte
	for n := 1; ; n++ {
		buf = buf[:0]
		tooLong := false
		for {
			part, err := d.in.ReadSlice('\n')
			if len(buf)+len(part) > longestLine {
				tooLong = true
			} else {
				buf = append(buf, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if err != nil && len(buf) == 0 && !tooLong {
				return nil
			}
			break
		}
		if tooLong {
			d.bad(n, errLongLine)
			continue
		}
		if err := each(n, bytes.TrimRight(buf, "\r\n")); err != nil {
			return err
		}
	}
}
