# Everything starts here: `make` prints what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build demo test test-unit test-kernel test-cluster test-differential test-oracle bench lint format clean FORCE

PATH := $(CURDIR)/node_modules/.bin:$(PATH)
NODE := node_modules/node/bin/node
ABI := agent/dataplane/generated/abi.ts
SOURCES = $(shell find agent -name '*.ts') native/index.js package.json package-lock.json

help: ## print this
	@echo 'make TARGET [KERNEL=6.1|6.12]   (KERNEL: run on that kernel, in a VM)'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

setup: ## install what is missing on a Debian 12 (apt, npm)
	@tools/setup

build: build/maglane.mjs build/maglane.node ## build the command, ./bin/maglane

demo: build ## two nodes, real traffic, in under 3 minutes
	@tools/on-kernel $(NODE) test/demo.ts

test: build ## all tests: unit, kernel, cluster, differential
	@$(NODE) tools/test.ts unit kernel cluster differential

test-unit: build ## tests that need no kernel
	@$(NODE) tools/test.ts unit

test-kernel: build ## tests on the kernel, in network namespaces
	@$(NODE) tools/test.ts kernel

test-cluster: build ## tests against a real Kubernetes API server
	@REQUIRE_CLUSTER=1 $(NODE) tools/test.ts cluster

test-differential: build ## the same histories to kube-proxy and Maglane [HISTORIES=240] [SEED=1]
	@REQUIRE_CLUSTER=1 $(NODE) tools/test.ts differential

test-oracle: build ## packets made by chance against the oracle [PACKETS=1000000] [SEED=S]
	@tools/oracle $(or $(PACKETS),1000000) $(SEED)

bench: build ## beside the real kube-proxy, interleaved; writes docs/benchmarks.md [QUICK=1: 5 minutes] [BENCH=cell]
	@tools/setup --bench
	@KUBEBUILDER_ASSETS=$$(REQUIRE_CLUSTER=1 tools/components) $(NODE) test/bench/bench.ts $(if $(QUICK),--quick) $(BENCH)
	@$(if $(BENCH),:,$(NODE) test/bench/report.ts)

lint: $(ABI) ## oxlint, oxfmt and the type checker
	@oxlint
	@oxfmt --check
	@tsc -p .

format: | setup ## rewrite the TypeScript in the house style
	@oxfmt

clean: ## remove what was built
	@$(MAKE) -s -C native clean
	@rm -rf build agent/dataplane/generated

# The parts below know their own prerequisites: make asks them each time, and goes on only if they changed.
build/maglane.bpf.o: FORCE | setup
	@$(MAKE) -s -C bpf

native/maglane.node: FORCE | setup
	@$(MAKE) -s -C native

build/maglane.node: native/maglane.node
	@mkdir -p $(@D)
	@cp $< $@.new && mv $@.new $@

$(ABI): build/maglane.bpf.o agent/dataplane/generate-abi.ts
	@$(NODE) agent/dataplane/generate-abi.ts

# Split at the dynamic imports, so that a command loads only its own part. Some libraries are CommonJS
# and require what Node has built in: the banner lets them. yaml comes in both kinds; `await import('yaml')`
# finds its names only in the ES module.
build/maglane.mjs: $(ABI) $(SOURCES)
	@mkdir -p $(@D) && rm -f $(@D)/*.mjs $(@D)/*.mjs.map
	@esbuild agent/cli/main.ts --bundle --splitting --platform=node --target=node24 --format=esm --sourcemap --log-level=warning \
	  --outdir=$(@D) --entry-names=maglane --chunk-names=[name]-[hash] --out-extension:.js=.mjs \
	  --alias:yaml=./node_modules/yaml/browser/index.js \
	  --define:MAGLANE_VERSION="\"$$($(NODE) -p 'require("./package.json").version')\"" \
	  --banner:js="import { createRequire as bundleRequire } from 'node:module'; const require = bundleRequire(import.meta.url);"
