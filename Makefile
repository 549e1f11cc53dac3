# make demo    try it out: server, client and a small web site in one process
# make test    every check there is; says what it had to skip
# make fuzz    every fuzz target, FUZZTIME each (default 5m); FUZZ=name picks some
# make interop tests against strongSwan
# make interop6 tests ML-KEM against strongSwan 6, which it unpacks into a folder
# make scenarios  a thousand random scenarios of moves, COUNT=n plays n, SEED=n just one; and 500 of losses, LOSSES=n
# make build   bin/godwit
# make release  dist/: static binaries, Debian packages, checksums
# make lint    format, vet, staticcheck, go.mod

SHELL := /bin/bash
GO ?= go
FUZZTIME ?= 5m
FUZZ ?= .

# Programs that tests need, each with the Debian package it comes in. `make
# test` installs what is missing when it is run by root on a system with apt;
# INSTALL=no keeps it from that.
PROGRAMS := chromium:chromium nft:nftables ip:iproute2 sshd:openssh-server ssh:openssh-client curl:curl gcc:gcc gcc:libc6-dev squid:squid \
  ping:iputils-ping git:git nc.openbsd:netcat-openbsd dig:bind9-dnsutils nginx:nginx haproxy:haproxy caddy:caddy tayga:tayga
INSTALL ?= yes

# With REQUIRE_ALL=yes, as in .ci/run, a check that cannot run fails.
REQUIRE_ALL ?= no

# Tests with build tags of their own, by folder.
tagged = $(sort $(dir $(shell grep -rl --include='*_test.go' '^//go:build $(1)$$' . | sed 's|^\./||;s|^|./|')))
TAGS := netns,virtualtime,wallclock

# What had to be skipped, one a line.
SKIPPED := $(shell mktemp -u $${TMPDIR:-/tmp}/godwit-skipped.XXXXXX)

step = @printf '\n=== %s\n' "$(1)"
skip = { printf 'skipped: %s\n' "$(1)" | tee -a $(SKIPPED); [ "$(REQUIRE_ALL)" != yes ]; }

# Where make interop6 keeps strongSwan 6.
INTEROP6 ?= $(or $(TMPDIR),/tmp)/godwit-strongswan6

# What make interop needs besides. charon-systemd is strongSwan's daemon; it
# needs no systemd. Its libraries' packages come with plugins.
INTEROP := charon-systemd:charon-systemd swanctl:strongswan-swanctl swanctl:strongswan-libcharon \
  swanctl:libcharon-extra-plugins swanctl:libcharon-extauth-plugins swanctl:libstrongswan-standard-plugins \
  swanctl:libstrongswan-extra-plugins nft:nftables ip:iproute2 tshark:tshark tcpdump:tcpdump ping:iputils-ping conntrack:conntrack

.PHONY: demo test scenarios fuzz build release lint programs format vet staticcheck tidy unit virtualtime netns interop interop6 fuzz-short cross summary
.NOTPARALLEL:

demo: build
	@exec ./bin/godwit demo

build:
	@$(GO) build -o bin/godwit ./cmd/godwit

release:
	@$(GO) run ./cmd/release

test: programs lint unit virtualtime netns interop fuzz-short cross summary

lint: format vet staticcheck tidy

programs:
	$(call step,programs that the tests need)
	@$(call install,$(PROGRAMS))

# install tells which of some programs are missing and installs their packages.
define install
	missing=(); for p in $(1); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v "$${p%%:*}" >/dev/null || missing+=("$${p##*:}"); \
	done; \
	if [ $${#missing[@]} = 0 ]; then echo "all there"; \
	elif [ "$(INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $${missing[*]}"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get -qq update && apt-get -qq install -y --no-install-recommends "$${missing[@]}" >/dev/null; } || \
	    echo "could not install $${missing[*]}; the steps below say what that means"; \
	else echo "missing, and not installed without root and apt: $${missing[*]}"; fi
endef

format:
	$(call step,gofmt)
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then printf 'not formatted:\n%s\n' "$$files"; exit 1; fi

vet:
	$(call step,go vet)
	@$(GO) vet ./...
	@$(GO) vet -tags $(TAGS) ./...

staticcheck:
	$(call step,staticcheck)
	@$(GO) tool staticcheck ./...
	@$(GO) tool staticcheck -tags $(TAGS) ./...

tidy:
	$(call step,go mod tidy)
	@$(GO) mod tidy -diff
	@$(GO) mod verify

unit:
	$(call step,tests with the race detector)
	@if command -v "$$($(GO) env CC)" >/dev/null; then $(GO) test -race -shuffle=on ./...; \
	else $(GO) test -shuffle=on ./... && $(call skip,the race detector: it needs a C compiler); fi

virtualtime:
	$(call step,tests in virtual time)
	@modfile=$$($(GO) run ./lab/virtualtime) && \
	$(GO) test -modfile="$$modfile" -tags virtualtime $(call tagged,virtualtime) && \
	echo "and with offload switched off" && \
	$(GO) test -modfile="$$modfile" -tags virtualtime ./lab/handover -args -offload=false -scenarios 10

COUNT ?= 1000
LOSSES ?= 500
SEED ?= 0
scenarios:
	$(call step,random scenarios in virtual time)
	@modfile=$$($(GO) run ./lab/virtualtime) && overlay=$$($(GO) run ./lab/virtualtime -wallclock) && \
	$(GO) test -modfile="$$modfile" -overlay="$$overlay" -tags virtualtime,wallclock -timeout 60m -run TestRandomScenarios ./lab/handover -args -scenarios $(COUNT) -seed $(SEED)
	@[ $(SEED) != 0 ] || { modfile=$$($(GO) run ./lab/virtualtime) && \
	$(GO) test -modfile="$$modfile" -tags virtualtime -timeout 60m -run TestRandomLosses ./lab/handover -args -losses $(LOSSES); }

# What is played again with offload switched off: data by every encapsulation,
# across moves, and what a user of the proxy does first.
OFFLOADED := TestMovesDownload|TestTwoClients|TestCurl|TestErrors|TestStop|TestUDPOnly|TestESP|TestTCPOnly|TestPlainHTTPOnly|TestSmallMTU|TestHTTP3|TestTunMachineMoves

netns:
	$(call step,tests on real sockets in network namespaces)
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	if [ "$$($(GO) env GOOS)" != linux ]; then $(call skip,the tests in network namespaces: they need Linux); \
	elif [ "$$(id -u)" != 0 ]; then $(call skip,the tests in network namespaces: they need root); \
	elif ! unshare --net --mount true 2>/dev/null; then $(call skip,the tests in network namespaces: this system does not let root make any); \
	else \
	  missing=$$(for p in $(foreach p,$(filter-out gcc:% chromium:% squid:%,$(PROGRAMS)),$(firstword $(subst :, ,$p))); do command -v $$p >/dev/null || echo $$p; done); \
	  if [ -n "$$missing" ]; then $(call skip,the tests in network namespaces: they need programs that are missing); \
	  else $(GO) test -tags netns -p 1 -count=1 -timeout 40m $(filter-out ./lab/interop/,$(call tagged,netns)) && \
	    echo "and with offload switched off" && \
	    $(GO) test -tags netns -count=1 -timeout 40m -run "$(OFFLOADED)" ./lab/acceptance -args -offload=false; fi; \
	fi

interop:
	$(call step,tests against strongSwan)
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	if [ "$$($(GO) env GOOS)" != linux ]; then $(call skip,the tests against strongSwan: they need Linux); \
	elif [ "$$(id -u)" != 0 ]; then $(call skip,the tests against strongSwan: they need root); \
	elif ! unshare --net --mount true 2>/dev/null; then $(call skip,the tests against strongSwan: this system does not let root make network namespaces); \
	else \
	  $(call install,$(INTEROP)); \
	  missing=$$(for p in charon-systemd swanctl tshark tcpdump ping conntrack nft ip; do command -v $$p >/dev/null || echo $$p; done); \
	  if [ -n "$$missing" ]; then $(call skip,the tests against strongSwan: they need strongSwan and tshark as Debian packages them); \
	  else $(GO) test -tags netns -count=1 -parallel 4 -timeout 20m ./lab/interop; fi; \
	fi

# strongSwan 6, which has ML-KEM, comes from Debian unstable and so is no part of
# make test.
interop6:
	$(call step,tests against strongSwan 6)
	@lab/interop/strongswan6.sh "$(INTEROP6)" && \
	  GODWIT_STRONGSWAN6="$(INTEROP6)/run" $(GO) test -tags netns,strongswan6 -count=1 -timeout 10m -run TestPostQuantum ./lab/interop

# Lists fuzz targets as "package target". In the output of go test -list, the
# names of a package come before its "ok" line.
list-fuzz = $(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ {names = names " " $$1} /^ok/ {n = split(names, a, " "); for (i = 1; i <= n; i++) print $$2, a[i]; names = ""} /^(FAIL|---)/ {bad = 1; print > "/dev/stderr"} END {exit bad}'

# One worker for each target and as many targets at once as there are
# processors; a target's output is shown if it fails. The fuzzer of Go sometimes
# reports the end of its own time as a failure, without an input that fails:
# such a run is repeated.
fuzz-short:
	$(call step,every fuzz target for 10 s)
	@targets=$$($(list-fuzz)) && printf '%s\n' "$$targets" | xargs -P "$$(getconf _NPROCESSORS_ONLN)" -L 1 bash -c ' \
	  log=$$(mktemp); \
	  for try in 1 2 3; do \
	    if $(GO) test -run "^$$" -fuzz "^$$1$$" -fuzztime 10s -fuzzminimizetime 1s -parallel 1 "$$0" >"$$log" 2>&1; \
	    then echo "ok $$1 in $$0"; rm -f "$$log"; exit 0; fi; \
	    grep -q "^ *context deadline exceeded" "$$log" && ! grep -q "Failing input" "$$log" || break; \
	  done; \
	  echo "FAIL $$1 in $$0"; cat "$$log"; rm -f "$$log"; exit 1'

fuzz:
	@targets=$$($(list-fuzz)) && printf '%s\n' "$$targets" | { grep -E "$(FUZZ)" || { echo "no fuzz target matches FUZZ=$(FUZZ)"; exit 1; }; } | \
	while read -r package target; do \
	  printf '\n=== %s in %s\n' "$$target" "$$package"; \
	  $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	done

cross:
	$(call step,builds for other systems)
	@for os in darwin windows freebsd; do echo "$$os"; GOOS=$$os $(GO) build ./... || exit 1; done

summary:
	@printf '\n=== done\n'
	@if [ -s $(SKIPPED) ]; then sort -u $(SKIPPED); rm -f $(SKIPPED); else echo "all checks ran and passed"; fi
