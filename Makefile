# `make help` lists the targets. `make demo` needs nothing but Go; every other
# target builds or installs what it needs by itself.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := $(CURDIR)/bin
export PATH := $(BIN):$(PATH)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# The version comes from LDFLAGS. Go's own stamping asks git again, and fails
# where the tree belongs to another user.
GOBUILD := go build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)'

FUZZTIME ?= 5s
BENCH ?= .
SCENARIO ?=
IMAGE ?= execgate:$(VERSION)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: all
all: build lint test ## build, lint, test

.PHONY: build
build: ## build bin/execgate
	CGO_ENABLED=0 $(GOBUILD) -o bin/execgate ./cmd/execgate

.PHONY: demo --once
demo: ## the whole tour in one process, until Ctrl-C (make demo -- --once: end after it)
	@go run ./cmd/execgate demo $(filter --once,$(MAKECMDGOALS))
--once:
	@:

.PHONY: run
run: ## serve with config.example.yaml
	go run ./cmd/execgate serve --config config.example.yaml

.PHONY: test
test: bin/gotestsum test-tools ## every test, with the race detector, against a real Redis
	@scripts/test.sh

.PHONY: test-browser
test-browser: bin/buf ## gRPC-Web and Connect clients from npm in headless Chromium
	test/browser/run.sh

.PHONY: lint
lint: bin/golangci-lint ## golangci-lint, with the arrows between packages
	golangci-lint run ./...

.PHONY: generate
generate: buf-tools ## generate gen/ and the OpenAPI document from proto/
	rm -rf dist/generated
	buf generate -o dist/generated
	rm -rf gen
	mv dist/generated/gen gen
	go generate ./admin

.PHONY: checkgenerate
checkgenerate: buf-tools ## prove that both are what proto/ says
	@scripts/checkgenerate.sh

.PHONY: crash
crash: ## kill -9 gateways and Redis in the middle of 100,000 deliveries
	EXECGATE_CRASH_DELIVERIES=100000 go test ./queue ./test/deliveries -p 1 -run TestCrash -count 1 -v -timeout 30m

.PHONY: bench-deliveries
bench-deliveries: ## deliveries per second, what one adds to a call, the memory of 1,000,000 parked
	go test ./test/deliveries -run '^$$' -bench 'Delivery|Call' -benchtime 20000x -timeout 30m
	EXECGATE_PARKED=1000000 go test ./test/deliveries -run '^$$' -bench Parked -benchtime 1x -timeout 60m

.PHONY: golden
golden: ## write the golden files of the tests anew
	@for package in $$(git grep -l 'flag.Bool("update"' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		go test "./$$package" -update; \
	done

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (5s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## the gateway beside nginx, HAProxy and nghttpx (SCENARIO=pattern): bench/README.md
	@mkdir -p dist
	@go build -buildvcs=false -o dist/bench ./bench
	@dist/bench -scenario '$(SCENARIO)' -json dist/bench.json -markdown dist/bench.md

.PHONY: bench-go
bench-go: ## the benchmarks of the packages, with their allocations (BENCH=pattern)
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: image
image: ## build the container image with docker
	docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t $(IMAGE) .

.PHONY: tools
tools: bin/golangci-lint bin/gotestsum buf-tools ## build the pinned tools into bin/

.PHONY: buf-tools
buf-tools: bin/buf bin/protoc-gen-go bin/protoc-gen-go-grpc bin/protoc-gen-grpc-gateway bin/protoc-gen-connect-go

.PHONY: test-tools
test-tools: bin/versitygw bin/fake-gcs-server ## build the real S3 and GCS servers that tests run against

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

# tools/go.mod pins them; a new version there builds them anew.
TOOL = GOFLAGS= GOBIN=$(BIN) go -C tools install -buildvcs=false $(1) && touch $(BIN)/$(notdir $(1))

bin/buf: tools/go.mod
	$(call TOOL,github.com/bufbuild/buf/cmd/buf)
bin/golangci-lint: tools/go.mod
	$(call TOOL,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
bin/gotestsum: tools/go.mod
	$(call TOOL,gotest.tools/gotestsum)
bin/protoc-gen-go: tools/go.mod
	$(call TOOL,google.golang.org/protobuf/cmd/protoc-gen-go)
bin/protoc-gen-go-grpc: tools/go.mod
	$(call TOOL,google.golang.org/grpc/cmd/protoc-gen-go-grpc)
bin/protoc-gen-grpc-gateway: tools/go.mod
	$(call TOOL,github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway)
bin/protoc-gen-connect-go: tools/go.mod
	$(call TOOL,connectrpc.com/connect/cmd/protoc-gen-connect-go)

# The servers of tests are in a module of their own: they need much, and nothing
# of it should hold back the other tools.
TEST_TOOL = GOFLAGS= GOBIN=$(BIN) go -C tools/blob install -buildvcs=false $(1) && touch $(BIN)/$(notdir $(1))

bin/versitygw: tools/blob/go.mod
	$(call TEST_TOOL,github.com/versity/versitygw/cmd/versitygw)
bin/fake-gcs-server: tools/blob/go.mod
	$(call TEST_TOOL,github.com/fsouza/fake-gcs-server)
