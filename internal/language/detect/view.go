package detect

import "unsafe"

// view is b as a string, without a copy. It is valid as long as b is not
// changed: here, until the next event.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is s as bytes that nobody may change.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
