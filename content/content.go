// Package content holds the default content pack: Sigma rules for Linux process
// activity, each with events it must and must not match, and a corpus of benign
// events that no rule may match. It is a content repository like any other
// (pack.yml, rules, tests, benign); holdfast content test content runs it.
package content

import "embed"

// Default is the default content pack, a content repository.
//
//go:embed pack.yml rules tests benign
var Default embed.FS

// Paste is a harmless line that one of the rules finds: the way to see a
// finding arrive.
const Paste = "/bin/echo holdfast-demo"
