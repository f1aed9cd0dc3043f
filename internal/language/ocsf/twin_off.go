//go:build !holdfast_twin && !holdfast_sincere

package ocsf

// A shipped build defines what the table in process.go says, and nothing else.
const twinInputs = 0

var twinFields []Field
