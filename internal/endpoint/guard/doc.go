// Package guard is the one thing on a host that must never fail. It starts the
// worker and watches it, decides which content runs, and brings the last that
// held back within two seconds when new content does not, without the network
// and without asking anybody.
//
// Decide is the whole of its judgement, pure and total. The driver around it
// starts processes and moves one state file. Nothing here parses content: a
// generation is names of files, and a file is fit to run if its bytes are what
// its name says.
//
// # From candidate to current
//
// A proposal puts a candidate on trial: the state says so on disk, then a worker
// is started beside the one that runs. When it is ready the old one drains, and
// probation begins. It ends well after time and work (Policy) and, if what it
// replaces has had any, contact with the server; then the candidate is current,
// and what it replaced is the way back. A worker that dies, stalls or overruns its
// limits during its trial is replaced by the one before, and the digests it
// changed are shunned. A reboot in probation reverts; the second time it shuns. A
// guard that restarts during probation reverts and blames nobody.
//
// A candidate that has not reached the server by six times its probation is
// replaced by the one before. If that one reaches the server at once, the
// candidate failed, and the second time it is shunned; if not, the network was
// away, and the candidate is owed another trial.
//
// # From current back
//
// A current generation whose worker dies three times within a quarter of an
// hour, or under which the host reboots uncleanly as often, is left for the
// generation before it (and shunned), and that for the one before it, down to
// the newest that the publishers marked final. If what it is left for dies the
// same way, the shun is lifted: this host kills the one as well as the other.
//
// # Safe mode
//
// Below the last way back is safe mode: the worker that came with the package,
// without content. It can always be reached, and can always load something new.
// Every ten minutes, later every six hours, what ran before is tried again, with
// the same care as a candidate.
package guard
