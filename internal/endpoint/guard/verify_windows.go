package guard

import "io/fs"

// onlyOurs trusts the access list of the content directory, which the package
// sets.
func onlyOurs(fs.FileInfo) error { return nil }
