// Package opamp is the control plane's side of OpAMP over WebSocket: it holds
// the hosts' connections, tells Control what they say, and brings them what
// Control wants of them.
package opamp
