# What can be done with this checkout; `make` alone lists it.
PREFIX ?= /usr/local
DESTDIR ?=
product := target/product/bulkhead
# Where the guest of the demo is, which is not for this host's own microVMs.
demo := target/demo
machine := tests/host/run $(if $(SYSTEMD),--systemd)

.PHONY: help setup build guest guest-kernel demo check test test-native test-walls test-machine test-mutations reproducible fuzz soak bench bench-machine install shell-machine

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

setup: ## install by package name what a fresh Debian 12 lacks (as root)
	@.ci/setup

build: setup ## the product: one static binary
	.ci/product

guest: setup ## what microVMs boot on this host: Debian's cloud kernel and the agent (as root)
	@.ci/guest stock

guest-kernel: setup ## the same with a slim kernel of our own, from Debian's sources; boots faster
	@.ci/guest slim

demo: build ## a container's life; workspaces with network and bill, behind both walls; here and in the test machine
	BULKHEAD=$(CURDIR)/$(product) examples/life
	BULKHEAD=$(CURDIR)/$(product) examples/demo
	.ci/guest --root $(demo) stock
	tests/host/run --systemd --env BULKHEAD=$(CURDIR)/$(product) --with $(demo) \
	    --env BULKHEAD_GUESTS=$(CURDIR)/$(demo)/@data/guests -- sh -c 'modprobe kvm_amd; examples/life && exec examples/demo'

check: setup ## formatting, lints, licences, scripts
	@.ci/check

test: setup ## every test there is, here and in the test machine
	@.ci/test native machine

test-native: setup ## the tests that run on this host
	@.ci/test native

test-walls: setup ## every test of what a container does, with each container in a microVM; takes an hour
	@.ci/test walls

test-machine: setup ## the tests in the test machine, where none may be skipped; then each attack there, 2,000 times; an hour
	@.ci/test machine attacks

reproducible: setup ## the product built twice, in other places, is the same to the byte
	@.ci/reproducible

test-mutations: setup ## each defence taken out in turn, and the test that notices (as root)
	@.ci/mutations $(DEFENCES)

fuzz: setup ## hostile bytes, FUZZ_SECONDS (60) for each target; FUZZ_TARGETS='config wire' for some
	@fuzz/run $(FUZZ_TARGETS)

soak: setup ## what is tried thousands of times, for hours: SHARE=0.1 for a tenth (as root)
	@tests/soak native machine

bench: build ## start-up times beside Debian's crun and runc; what a network adds
	BULKHEAD=$(CURDIR)/$(product) benches/run
	BULKHEAD=$(CURDIR)/$(product) benches/run workspaces

bench-machine: build ## microVMs beside QEMU's, the least memory of a container; in the test machine, half an hour
	benches/run machines
	benches/run against-qemu
	BULKHEAD=$(CURDIR)/$(product) benches/run memory

install: build ## into DESTDIR/PREFIX, with manual pages and shell completions
	install -D -m 755 $(product) $(DESTDIR)$(PREFIX)/bin/bulkhead
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(product) man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(product) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/bulkhead
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	$(product) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_bulkhead
	install -d $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(product) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/bulkhead.fish

shell-machine: setup ## a shell in the test machine (SYSTEMD=1: with systemd as pid 1)
	@$(machine) --shell
