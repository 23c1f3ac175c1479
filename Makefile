# Everything that is more than `go test ./...`. `make` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
TOOL := go tool -modfile=tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build standalone embedded check fmt vet lint race docs conformance bench profile fuzz interop drill demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/watchword, stripped and reproducible
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/watchword ./cmd/watchword

standalone: ## bin/watchword-standalone, without the clients of Redis, NATS and Kafka: 40 % smaller
	CGO_ENABLED=0 go build -tags standalone -trimpath -ldflags '-s -w' -o bin/watchword-standalone ./cmd/watchword

embedded: ## bin/watchword-embedded, with a NATS server inside for a small fleet without a broker: 22 % larger
	CGO_ENABLED=0 go build -tags embedded_nats -trimpath -ldflags '-s -w' -o bin/watchword-embedded ./cmd/watchword

check: fmt vet lint conformance race ## what must pass before a commit

fmt: ## fail where gofmt would change something
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet: ## go vet, also in the other modules
	go vet ./...
	go vet -tags standalone ./app ./cmd/...
	go vet -tags embedded_nats ./app ./cmd/... ./driver/nats/...
	cd interop && go vet ./...
	cd tools && go vet ./...

lint: ## staticcheck (staticcheck.conf)
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags embedded_nats ./app ./driver/nats/embedded

race: ## every test with the race detector, also of the builds with a NATS server inside, and with no engine at all
	go test -race ./...
	go test -tags standalone ./app ./cmd/watchword
	go test -race -tags embedded_nats -run Embedded ./app
	go test -race -tags embedded_nats ./driver/nats/embedded

docs: ## write what is generated: docs/config.md, docs/config.schema.json, docs/conformance.md
	go run ./cmd/watchword config reference > docs/config.md
	go run ./cmd/watchword config schema > docs/config.schema.json
	cd tools && go run ./conformance -write ..

conformance: ## fail where docs/conformance.md does not tell the truth
	cd tools && go run ./conformance -check ..

bench: ## the figures of docs/performance.md, in one run, with ratios
	cd tools && go run ./bench ..

profile: ## a CPU profile of the hit path in process: cpu.prof
	go test ./cache -run '^$$' -bench VerifyHot -cpu 1 -benchtime 5s -cpuprofile cpu.prof -o cache.test
	go tool pprof -top -nodecount 30 cache.test cpu.prof

fuzz: ## every fuzz test for FUZZTIME (default 20s)
	@for p in $$(grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | sed 's/func //'); do \
	    echo "$$p $$f"; go test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $${FUZZTIME:-20s}; done; done

interop: ## real authorization servers and gateways against the binary; FLAGS=-v prints what they measure
	bash interop/setup
	cd interop && go test -count=1 -timeout 15m $(FLAGS) ./...

drill: ## every drill, on loopback: a verdict per promise; SLACK=5s on a slow machine
	go run ./cmd/watchword drill all --slack $(or $(SLACK),2s)

demo: ## the demo of the README
	go run ./cmd/watchword demo
