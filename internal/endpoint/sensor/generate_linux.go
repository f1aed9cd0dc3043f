package sensor

// Both multiarch directories are named, so that either kind of machine can
// generate; the result is the same, because the programs read no registers.
//go:generate go tool -modfile=../../../tools/go.mod bpf2go -go-package sensor -tags linux -target bpfel -type exec_event -type task_event process bpf/process.bpf.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
