// Package rollout decides how a release reaches a fleet and when it must stop.
//
// It is pure: [Decide] takes a [Policy] (fixed for the life of a rollout), a
// [State] (all that must be remembered), a [Snapshot] (what is observed) and
// the time, and returns the next state and the actions to carry out. It does no
// I/O, reads no clock and draws no random numbers. The same code runs in
// holdfastd and in the simulator; a decision costs O(strata), never O(hosts).
//
// # The procedure
//
// A release is an experiment. When a host of stratum s asks (its poll, or its
// heartbeat), it is drawn either for the release (arm "new") or for a placebo
// that re-activates what it has. Both clocks start at that poll. The hosts drawn
// in one step form a block; a harm event in a block is compared with the hosts
// of the same block and stratum that are still at risk, as in the log-rank test.
//
// Each event multiplies an e-process by its likelihood ratio under a grid of
// alternatives. Under "the release does at most θ times the harm of the
// placebo" the expectation of every factor is at most 1, so the product is a
// non-negative supermartingale, and by Ville's inequality it ever reaches 1/α
// with probability at most α, however often it is looked at. E-processes of
// scopes (each stratum, each level of a factor, the pool) and of signals are
// combined by fixed weights, which keeps that property. HALT iff E ≥ 1/α.
//
// Pace follows a harm budget: as long as nothing is known the release may be
// on few hosts; every clean host buys κ more. Coverage, probes, the control
// floor, the rules for small fleets and STOP are described where they are
// decided.
//
// # Sources
//
//   - J. ter Schure, M. F. Pérez-Ortiz, A. Ly, P. D. Grünwald, "The safe log
//     rank test: error control under continuous monitoring with unlimited
//     horizon", NEJSDS 2024, arXiv:2011.06931 (the factor of one event).
//   - M. Lindon, A. Malek, "Anytime-valid inference for multinomial count
//     data", NeurIPS 2022 (events falling on arms; rate-ratio grids).
//   - S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
//     nonparametric, nonasymptotic confidence sequences", Ann. Statist. 2021
//     (the beta-mixture bound behind hU).
//   - V. Vovk, R. Wang, "E-values: calibration, combination and applications",
//     Ann. Statist. 2021, arXiv:1912.06116, and R. Wang, arXiv:2409.19888
//     (averages are the admissible way to merge e-values of any dependence).
//   - J. Ville, "Étude critique de la notion de collectif", 1939 (the
//     inequality).
package rollout
