package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// EVTX, the Windows event log, is a file header and chunks of 64 KiB, each with
// records in binary XML (binxml.go). Chunks stand alone, so that a damaged one
// costs only its own records. The format is described by libevtx,
// "Windows XML Event Log (EVTX)".
const (
	evtxHeader  = 4096
	evtxChunk   = 65536
	evtxRecords = 0x200 // where the records of a chunk start
	evtxRecord  = 24    // bytes of a record's header
)

var (
	evtxChunkMagic  = []byte("ElfChnk\x00")
	evtxRecordMagic = []byte{0x2a, 0x2a, 0, 0}
)

func decodeEVTX(d *decoding, emit func(*Record) error) error {
	header := make([]byte, 128)
	if _, err := io.ReadFull(d.in, header); err != nil {
		return errors.New("the EVTX file ends in its header")
	}
	size := int64(binary.LittleEndian.Uint16(header[0x28:]))
	if size < 128 || size > evtxHeader {
		size = evtxHeader
	}
	if _, err := io.CopyN(io.Discard, d.in, size-128); err != nil {
		return errors.New("the EVTX file ends in its header")
	}
	chunk, record := make([]byte, evtxChunk), 0
	for {
		n, err := io.ReadFull(d.in, chunk)
		if err == io.EOF {
			return nil
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
		if bytes.HasPrefix(chunk[:n], evtxChunkMagic) {
			if err := decodeChunk(d, chunk[:n], &record, emit); err != nil {
				return err
			}
		} else if len(bytes.Trim(chunk[:n], "\x00")) > 0 {
			d.bad(record, errors.New("a chunk of the EVTX file is damaged, and its records are skipped"))
		}
		if n < evtxChunk {
			return nil
		}
	}
}

func decodeChunk(d *decoding, chunk []byte, record *int, emit func(*Record) error) error {
	for at := evtxRecords; at+evtxRecord+4 <= len(chunk); {
		head := chunk[at:]
		if !bytes.HasPrefix(head, evtxRecordMagic) {
			return nil // the rest of the chunk is free
		}
		size := int(binary.LittleEndian.Uint32(head[4:]))
		*record++
		if size < evtxRecord+4 || at+size > len(chunk) {
			d.bad(*record, fmt.Errorf("an EVTX record says it has %d bytes; the rest of its chunk is skipped", size))
			return nil
		}
		r, err := decodeEVTXRecord(chunk, at, size)
		if err != nil {
			d.bad(*record, err)
		} else {
			r.Line = *record
			if err := emit(r); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

func decodeEVTXRecord(chunk []byte, at, size int) (*Record, error) {
	x := &binXML{chunk: chunk, end: at + size - 4, nodes: mostBinXMLNodes}
	root := &xmlNode{}
	if err := x.fragment(at+evtxRecord, root, nil, 0); err != nil {
		return nil, err
	}
	object, _ := root.object().(map[string]any)
	r := &Record{}
	if !r.windows(object) {
		return nil, errors.New("an EVTX record is not an event")
	}
	if r.Time.IsZero() {
		r.Time = fileTime(binary.LittleEndian.Uint64(chunk[at+16:]))
	}
	return r, nil
}

// fileTime converts 100 ns steps since 1601.
func fileTime(t uint64) time.Time {
	const epoch = 116444736000000000
	if t < epoch || t > epoch+1<<62 {
		return time.Time{}
	}
	return time.Unix(int64((t-epoch)/1e7), int64((t-epoch)%1e7)*100).UTC()
}
