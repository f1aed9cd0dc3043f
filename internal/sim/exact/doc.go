// Package exact plays every host of a small fleet (up to 20,000) in virtual
// time, with the parts of Holdfast that decide in production: the real
// reconcile and fleet accounting on the control plane's side, the real loader
// check and guard decision on every host. What is played is the store (in
// memory, and able to fail), the network and its messages, the nodes of the
// control plane, hostile hosts, the worker process below the guard, what
// organisations sign and people order, and time.
//
// After every step the promises are checked host by host, and with them what
// customers are guaranteed. When another node takes the lead, all hosts are
// connected to it: a follower serves no hosts.
package exact
