# Holdfast. `make help` lists what a person types; everything else is detail.
SHELL   := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VERSION ?= 0.1.0
STATE   ?= .holdfast
GO      ?= go
# One way to compile for build, lint and tests, so that each package is compiled
# once: without the machine's paths, and without C but for the race detector.
export GOFLAGS     := -trimpath $(GOFLAGS)
export CGO_ENABLED := 0
TOOL    := $(GO) tool -modfile=tools/go.mod
# -s -w drops symbol tables: the guard has a size to keep.
BUILD   := $(GO) build -ldflags "-s -w -X main.version=$(VERSION)"
BIN     := bin/holdfast bin/holdfastd bin/holdfast-agent bin/holdfast-guard

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: assets ## the four binaries, in bin/
	@mkdir -p bin
	@for b in $(notdir $(BIN)); do $(BUILD) -o bin/$$b ./cmd/$$b; done
	@ls -l $(BIN) | awk '{printf "  %-20s %6.1f MB\n", $$9, $$5/1e6}'

.PHONY: run
run: build ## start Holdfast on this machine: server, this host, 200 simulated hosts (ONCE=1 stops when ready)
	@exec bin/holdfast demo --state $(STATE) $(if $(ONCE),--once)

.PHONY: drill
drill: build twins ## replay 19 July 2024 on real processes, and see the three walls hold
	@exec bin/holdfast drill july19 --bin bin $(if $(JSON),--json)

.PHONY: drills
drills: build twins ## the other drills: silence, slow, storm, outage, leader, latent, mute (DRILL=name for one)
	@exec bin/holdfast drill $(or $(DRILL),all) --bin bin $(if $(JSON),--json)

# Builds that exist for the drill alone and are never installed: sensors that
# lie, tell the truth, are older, die at start, are slow or reach nobody, and a
# server that cannot halt.
TWIN = $(GO) build -ldflags "-s -w -X main.version=$(VERSION)-$(1)" -tags '$(2)' -o bin/drill/$(3) ./cmd/$(4)
.PHONY: twins
twins:
	@mkdir -p bin/drill
	@$(call TWIN,twin,holdfast_twin,agent-twin,holdfast-agent)
	@$(call TWIN,sincere,holdfast_sincere,agent-sincere,holdfast-agent)
	@$(call TWIN,sincere-older,holdfast_sincere,agent-sincere-older,holdfast-agent)
	@$(call TWIN,deadstart,holdfast_deadstart,agent-deadstart,holdfast-agent)
	@$(call TWIN,slow,holdfast_slow,agent-slow,holdfast-agent)
	@$(call TWIN,mute,holdfast_mute,agent-mute,holdfast-agent)
	@$(call TWIN,unhalted,holdfast_unhalted,holdfastd-unhalted,holdfastd)

SEED ?= 1
.PHONY: test
test: deps build twins ## every check and every test
	@$(MAKE) --no-print-directory lint generated cross
	RAPID_SEED=$(SEED) HOLDFAST_BIN=$(CURDIR)/bin $(GO) test -pgo=off -vet=off -timeout 20m ./...
	RAPID_SEED=$(SEED) CGO_ENABLED=1 $(GO) test -race -vet=off -timeout 20m $(RACE)

# The race detector where goroutines share state; elsewhere it only costs time.
RACE := ./internal/endpoint/guard ./internal/endpoint/lifeline ./internal/endpoint/outbox ./internal/endpoint/uplink ./internal/endpoint/worker ./internal/edge/bus ./internal/edge/opamp

.PHONY: lint
lint: ## format, vet, staticcheck
	@test -z "$$($(TOOL) gofumpt -l $$(git ls-files '*.go' | grep -vE '_templ\.go$$|_bpfel\.go$$') | tee /dev/stderr)" || { echo 'run: make fmt' >&2; exit 1; }
	@$(GO) vet ./...
	@$(TOOL) staticcheck ./...
	@$(GO) mod tidy -diff

.PHONY: fmt
fmt: ## format the source
	@$(TOOL) gofumpt -w $$(git ls-files '*.go' | grep -vE '_templ\.go$$|_bpfel\.go$$')

.PHONY: generate
generate: ## regenerate what is committed: templates, and the eBPF object (needs clang)
	@$(TOOL) templ generate -path internal/edge/console >/dev/null
	@if command -v clang >/dev/null; then $(GO) generate ./internal/endpoint/sensor/...; else echo 'no clang: the eBPF object is left as it is' >&2; fi

.PHONY: generated
generated: # what is committed is what generate makes
	@$(TOOL) templ generate -path internal/edge/console >/dev/null 2>&1
	@git diff --exit-code -- '*_templ.go' || { echo 'templates changed: run make generate and commit' >&2; exit 1; }

# Endpoint programs and the CLI must keep building for the platforms they are for.
# Without optimising: what is asked is whether they build.
.PHONY: cross
cross:
	@for p in linux/arm64 windows/amd64 darwin/arm64; do for b in holdfast-guard holdfast-agent holdfast; do \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -pgo=off -gcflags='all=-N -l -dwarf=false' -o /dev/null ./cmd/$$b || { echo "$$b does not build for $$p" >&2; exit 1; }; done; done

# What the tests need beyond Go, gcc, make, git and node: installed once, as root.
.PHONY: deps
deps: assets
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then \
	  echo 'installing chromium and postgresql for the tests'; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium postgresql fonts-dejavu-core >/dev/null; fi

# Scripts and fonts of the console, from npm, embedded at build. Without them the
# console still works, without live updates.
assets: internal/edge/console/assets/vendor/.stamp
internal/edge/console/assets/vendor/.stamp: web/package-lock.json
	@if command -v npm >/dev/null; then cd web && npm ci --silent --no-audit --no-fund --ignore-scripts && node vendor.mjs && touch ../$@; \
	else echo 'no npm: the console is built without live updates' >&2; fi

.PHONY: clean-state
clean-state: ## forget the demo: hosts, findings, keys
	rm -rf $(STATE)

CHECKS ?= 5000
.PHONY: properties
properties: ## every property test with CHECKS random cases from a seed of its own: what make test, always the same, cannot meet
	RAPID_CHECKS=$(CHECKS) nice -n 19 $(GO) test -count=1 -timeout 4h $$(git grep -l pgregory.net/rapid -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

SEEDS ?= 10000
.PHONY: sim-seeds
sim-seeds: ## the promises on SEEDS random small fleets from SEED on, host by host, with everything that can go wrong
	HOLDFAST_SIM_SEEDS=$(SEEDS) HOLDFAST_SIM_SEED=$(SEED) nice -n 19 $(GO) test -count=1 -timeout 4h -run TestPromisesHold -v ./internal/sim/exact

.PHONY: bench-rollout
bench-rollout: ## the controller: a tick over 2,000 strata, an event, a coverage plan for 200,000 hosts, a rollout to 8.5 million
	@$(GO) test -run '^$$' -bench 'Step|Event' -benchtime 50x ./bench/rollout | grep -E '^(Bench|FAIL)'
	@$(GO) test -run '^$$' -bench 'Coverage|Fleet' -benchtime 3x ./bench/rollout | grep -E '^(Bench|FAIL)'

.PHONY: bench-sigma
bench-sigma: ## the detection engine beside other Go engines (HOLDFAST_DATA names the public rules; JSON=1)
	@cd bench/sigma && $(GO) run -pgo=$(PROFILE) . $(if $(JSON),-json)

# The agent is compiled with a profile of the engine at work, which Go takes from
# this place by itself; what measures the engine is compiled with the same.
PROFILE := $(CURDIR)/cmd/holdfast-agent/default.pgo
.PHONY: profile
profile: ## tell the compiler anew what is hot in the agent (HOLDFAST_DATA names the public rules)
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cd bench/sigma && \
	for run in linux routed unrouted; do $(GO) run -trimpath -pgo=off . -only $$run -events 200000 -cpuprofile "$$dir/$$run" >/dev/null || exit 1; done && \
	$(GO) tool pprof -proto -output "$$dir/all" "$$dir/linux" "$$dir/routed" "$$dir/unrouted" 2>/dev/null && cp "$$dir/all" $(PROFILE)

.PHONY: bench-guard
bench-guard: build ## the guard: size, memory, and fault to previous generation over 50 faults (JSON=1)
	@$(GO) run ./bench/guard --faults 50 $(if $(JSON),--json)

HOSTS ?= 18000
.PHONY: bench-control
bench-control: build ## the server: HOSTS=18000 connections, memory, heartbeats, an offer to all, a reconnect storm, beside opamp-go (JSON=1)
	@$(GO) build -o bin/bench-control ./bench/control && bin/bench-control --hosts $(HOSTS) $(if $(JSON),--json)
