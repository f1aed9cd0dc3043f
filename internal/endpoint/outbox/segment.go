package outbox

import (
	"encoding/binary"
	"hash/crc32"
)

// A segment is a file of records, each a header of eight bytes and the bytes
// it announces:
//
//	length uint32, little-endian, at most maxRecord
//	crc    uint32, little-endian, CRC-32C of length and bytes
//
// It is only ever appended to, by one process, and ends where a record does
// not check: after a crash or a full disk that is the torn tail.

// maxRecord bounds one record, in bytes. It is above wire.MaxRecord.
const maxRecord = 128 << 10

const headerSize = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends a record to b.
func appendRecord(b, record []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
	crc := crc32.Update(crc32.Checksum(b[start:start+4], castagnoli), castagnoli, record)
	b = binary.LittleEndian.AppendUint32(b, crc)
	return append(b, record...)
}

// firstRecord splits the first record off b; ok is false at the end, torn or
// not. The record is part of b.
func firstRecord(b []byte) (record, rest []byte, ok bool) {
	if len(b) < headerSize {
		return nil, b, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || n > maxRecord || uint64(len(b)) < headerSize+uint64(n) {
		return nil, b, false // a zero length is a hole that a crash left, never a record
	}
	record = b[headerSize : headerSize+n]
	crc := crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, record)
	if crc != binary.LittleEndian.Uint32(b[4:]) {
		return nil, b, false
	}
	return record, b[headerSize+n:], true
}

// records splits a segment, and says how many bytes at its end do not check.
func records(b []byte) (all [][]byte, torn int) {
	for {
		r, rest, ok := firstRecord(b)
		if !ok {
			return all, len(b)
		}
		all, b = append(all, r), rest
	}
}
