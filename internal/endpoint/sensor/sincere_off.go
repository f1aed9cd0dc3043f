//go:build !holdfast_sincere

package sensor

const sincere = 0
