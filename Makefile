# weft. Start with "make help", "make demo" and "make test". CONTRIBUTING.md describes the targets, docs/ARCHITECTURE.md the packages.

BIN      := bin
COMMANDS := weft weft-cni weft-kube weft-docker weft-bench
# Twelve digits, as in deploy/release.sh: the length that git chooses depends on the number of commits in the clone.
VERSION  := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
export CGO_ENABLED := 0

# SYSTEM_TOOLS are commands that the demo, the image and the benchmark run. TEST_TOOLS are those that only tests run: containers, a
# browser, DNS queries, the race detector, and the check of the systemd unit (Alpine has no systemd).
SYSTEM_TOOLS := nft ip ping iperf3 tcpdump nsenter sysctl curl
TEST_TOOLS   := dockerd containerd runc conntrack iptables-legacy gcc chromium dig $(if $(shell command -v apk),,systemd-analyze)

# Linters have a separate module, so that their dependencies do not mix with those of weft.
TOOLS := $(CURDIR)/$(BIN)/tools

.PHONY: all build install help image docker-plugin release demo test e2e e2e-smoke e2e-clean sim monkey test-unit check fmt vet lint tidy layering subjects cross vuln bench microbench fuzz fuzz-smoke clean system-packages test-packages

all: build

## help: this list
help:
	@sed -n 's/^##\( \|$$\)//p' Makefile

## build: the programs, in bin/; also "make" alone
build:
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(COMMANDS:%=./cmd/%)

## install: the programs that a node needs, in PREFIX/bin; run "make build" first if root has no Go. "make release" builds packages
PREFIX ?= /usr/local
install:
	@test -x $(BIN)/weft || $(MAKE) build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(BIN)/weft $(BIN)/weft-cni $(BIN)/weft-kube $(BIN)/weft-docker $(DESTDIR)$(PREFIX)/bin/

## image: bin/weft-image.tar for containerd and podman, named IMAGE, and its digest; needs umoci (Debian: umoci) and no registry. No
##        registry has the default name, so that nothing else can be pulled under it
IMAGE ?= localhost/weft:latest
image: system-packages build
	@command -v umoci >/dev/null || { echo "umoci is missing (Debian: apt-get install umoci)"; exit 1; }
	deploy/image.sh $(BIN) $(IMAGE) $(BIN)/weft-image.tar

## docker-plugin: bin/docker-plugin, for "docker plugin create weft bin/docker-plugin" on each host: the managed form of weft-docker, which
##                swarms need
docker-plugin: build
	rm -rf $(BIN)/docker-plugin
	install -d $(BIN)/docker-plugin/rootfs
	install -m 0755 $(BIN)/weft-docker $(BIN)/docker-plugin/rootfs/
	install -m 0644 deploy/docker/config.json $(BIN)/docker-plugin/

## release: archives, .deb and .rpm for amd64 and arm64, an SBOM, SHA256SUMS and its signature in bin/release; builds are reproducible.
##          ARCH=amd64 builds for that architecture alone. WEFT_SIGN_KEY is the key of the signature (minisign), WEFT_RELEASE_IMAGE an image to add (bin/weft-image.tar)
release:
	deploy/release.sh $(BIN)/release $(ARCH)

## demo: three nodes with pods on this machine; needs root
demo: system-packages build
	$(BIN)/weft-bench demo --bin $(BIN)

## test: all tests with the race detector, as root also those with real namespaces, TAPs and nftables; at the same time the end-to-end
##       tests, which mostly wait for the programs that they start; then the simulation of the address space again without the race
##       detector, at its full length
UNIT_TESTS = $$(go list ./... | grep -v '/internal/e2e$$')
test: test-packages build
	@CGO_ENABLED=1 go test -race -timeout 25m $(UNIT_TESTS) & unit=$$!; \
	go test -timeout 45m -parallel 4 ./internal/e2e; e2e=$$?; \
	wait $$unit && exit $$e2e
	go test -timeout 10m ./ipam

## test-unit: the tests that need neither root nor much time
test-unit:
	go test -short $(UNIT_TESTS)

## sim: 10,000 random histories of the address space instead of some hundred, and one of 1,000 nodes instead of 200;
##      WEFT_SEED=n replays the short history of that seed
sim:
	WEFT_SIM=full go test -timeout 60m -count=1 -run 'TestHistories$$|TestLargeHistory' -v ./ipam
	WEFT_SIM=full go test -timeout 20m -count=1 -run 'TestRevokedNodeIsOutOfMany' -v ./mesh

## monkey: changes hosts at random under traffic for MONKEY_TIME, and checks after each change that the network is whole again within
##         five seconds, or that a condition explains why not; needs root. WEFT_SEED=n replays the sequence of that seed
MONKEY_TIME ?= 10m
monkey: test-packages
	WEFT_TEST=require WEFT_MONKEY=$(MONKEY_TIME) go test -count=1 -timeout 2h -run 'TestMonkey$$' -v ./internal/e2e

## e2e: weft with podman, then on real Kubernetes clusters of two nodes on this machine, with the upstream tests, in five settings; writes
##      docs/CONFORMANCE.md. It needs root, Debian and some hours, and goes on where an earlier run of the same version broke off.
##      E2E=iptables,dual runs only these settings, PREVIOUS=REV is the release to upgrade from
E2E ?= all
# While there is no tag: the last commit of 2026-11-30.
PREVIOUS ?= 92a152c0572554fa32578097bf42fd2c5eec6423
KUBERNETES_E2E = WEFT_E2E_PREVIOUS=$(PREVIOUS) go test -count=1 -timeout 24h -v -run TestKubernetes ./internal/e2e/kubernetes
e2e: image
	command -v podman >/dev/null || apt-get install -y -qq --no-install-recommends podman >/dev/null
	WEFT_TEST=require go test -count=1 -timeout 20m -run 'TestPodman|TestContainerd' ./internal/e2e
	WEFT_E2E=$(E2E) $(KUBERNETES_E2E)

## e2e-smoke: the part of e2e for every release, in a quarter of an hour once the programs of the cluster are built; writes no page
e2e-smoke: image
	rm -rf $(BIN)/e2e/*/smoke
	WEFT_E2E=smoke $(KUBERNETES_E2E)

## e2e-clean: forgets the results of e2e, so that the next run begins anew
e2e-clean:
	rm -rf $(BIN)/e2e

## bench: compares weft with the kernel's VXLAN and other overlays, as ratios; needs root. BENCH='--quick' takes three minutes,
##        bin/weft-bench run --help lists the other options
BENCH ?=
bench: system-packages build
	$(BIN)/weft-bench run --bin $(BIN) $(BENCH)

## microbench: the Go benchmarks of all packages
microbench:
	go test -run '^$$' -bench . -benchmem ./...

## fuzz: runs each fuzz target for FUZZTIME with coverage guidance, one after the other, and reports those that fail; there are some
##       thirty (.ci/fuzz list), so FUZZTIME=2m takes an hour
FUZZTIME ?= 20s
fuzz:
	.ci/fuzz run $(FUZZTIME)

## fuzz-smoke: runs each fuzz target for FUZZSMOKE without coverage guidance, two at a time: it finds a target that fails at once
FUZZSMOKE ?= 2s
fuzz-smoke:
	.ci/fuzz smoke $(FUZZSMOKE)

## check: all static checks
check: fmt vet lint tidy layering subjects cross vuln

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "run gofmt -w on: $$out"; exit 1; }

vet:
	go vet ./...
	go vet -tags man ./cmd/weft

lint: $(TOOLS)/golangci-lint
	$(TOOLS)/golangci-lint run ./...

$(TOOLS)/golangci-lint: internal/tools/go.mod
	go -C internal/tools build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/govulncheck: internal/tools/go.mod
	go -C internal/tools build -o $@ golang.org/x/vuln/cmd/govulncheck

tidy:
	go mod tidy -diff

# Imports go down, and comments, messages and pages are in plain English.
layering:
	go test ./internal/archtest

# Subjects of commits.
subjects:
	.ci/check-commits

cross:
	GOARCH=arm64 go build -o /dev/null ./cmd/...

# The vulnerability database is on the network. Where it cannot be reached, the check is skipped with a message.
vuln: $(TOOLS)/govulncheck
	@out=$$($(TOOLS)/govulncheck ./... 2>&1); code=$$?; \
	case "$$out" in *"fetching vulnerabilities"*|*"vuln.go.dev"*) echo "govulncheck: cannot reach the vulnerability database, skipped"; exit 0;; esac; \
	echo "$$out"; exit $$code

# $(call install,TOOLS,DEBIAN,FEDORA,ALPINE) installs the packages of a distribution if one of TOOLS is missing and the user is root.
define install
	@missing=; for t in $(1); do command -v $$t >/dev/null 2>&1 || [ -x /usr/sbin/$$t ] || missing="$$missing $$t"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "not root: kernel tests will be skipped (missing:$$missing)"; exit 0; fi; \
	echo "installing missing tools:$$missing"; \
	if command -v apt-get >/dev/null; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
	elif command -v dnf >/dev/null; then dnf install -y -q $(3); \
	elif command -v apk >/dev/null; then apk add -q $(4); \
	else echo "unknown package manager, install by hand:$$missing"; exit 1; fi
endef

system-packages:
	$(call install,$(SYSTEM_TOOLS),nftables iproute2 iputils-ping iperf3 tcpdump util-linux procps curl,\
		nftables iproute iputils iperf3 tcpdump util-linux procps-ng curl,nftables iproute2 iputils iperf3 tcpdump util-linux procps curl)

test-packages: system-packages
	$(call install,$(TEST_TOOLS),docker.io containerd runc containernetworking-plugins conntrack iptables gcc libc6-dev chromium fonts-dejavu-core dnsutils systemd,\
		moby-engine containerd runc containernetworking-plugins conntrack-tools iptables iptables-legacy gcc glibc-devel chromium dejavu-sans-fonts bind-utils systemd,\
		docker containerd containerd-ctr runc cni-plugins conntrack-tools iptables iptables-legacy gcc musl-dev chromium font-dejavu bind-tools)

clean:
	rm -rf $(BIN)
