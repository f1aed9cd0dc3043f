// Package sim plays a fleet and time, deterministically, for the code that
// decides in production.
//
// Nothing here decides anything about a release: package rollout does, the
// very code that runs in holdfastd. The simulator draws hosts when rollout says
// so, lets them break, fall silent or stay well, and reports what a control
// plane would have observed. Time is virtual; every random number comes from
// the scenario's seed, so that a run can be replayed exactly.
//
// There are two fidelities. Counts ([Counts]) plays groups of like hosts and
// reaches 8.5 million of them; package exact plays every host, with the real
// fleet accounting, guard decisions and loader checks.
//
// After every step the promises that can be seen at that fidelity are checked;
// a violation names seed and step.
package sim
