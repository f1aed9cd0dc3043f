package detect

import (
	"encoding/binary"
	"math/bits"
)

// hasher hashes group keys and counted values. It is keyed, so that who
// chooses the values (user names, say) cannot make two of them count as one;
// the key is saved with the state. The mixing is that of wyhash: multiply to
// 128 bits and fold.
type hasher [2]uint64

func (h hasher) sum(b []byte) uint64 {
	x := h[0] ^ uint64(len(b))*0x9E3779B97F4A7C15
	for len(b) >= 8 {
		x = mix(x^binary.LittleEndian.Uint64(b), h[1])
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	return mix(mix(x^tail, h[1]), h[0]^0xD6E8FEB86659FD93)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b|1)
	return hi ^ lo
}
