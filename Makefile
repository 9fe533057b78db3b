# All targets do their own set-up: as root they install Debian packages that are missing, as anybody else they
# say which. Everything they make lies under target/.

.PHONY: build check test fuzz conformance demo bench bases clean-store
.NOTPARALLEL:

HOST = $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)

## build: the release binary, as target/kiln
build:
	@testdata/setup build
	cargo build --release --package kiln-cli
	@mkdir -p target
	@cp $(TARGET_DIR)/$(HOST)/release/kiln target/kiln.new && mv target/kiln.new target/kiln
	@LC_ALL=C ldd target/kiln 2>&1 | grep -qE 'statically linked|not a dynamic executable' || \
		{ echo "target/kiln is not static:"; ldd target/kiln; exit 1; }
	@ls -lh target/kiln | awk '{ print "target/kiln: " $$5 ", static" }'

## check: formatting and lints
check:
	@testdata/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

## test: the workspace's tests, and the experiments with real package managers
test:
	@testdata/run-tests

## fuzz: the parser, the expander, the ignore matcher, the lowering and the package readers, 60 s each. FUZZ_FLAGS="--seconds 600 lower"
fuzz:
	@testdata/fuzz/run $(FUZZ_FLAGS)

## conformance: the same Dockerfiles built by kiln, docker with BuildKit and buildah, and a step's world in kiln and docker
conformance: build
	@testdata/setup bench conformance users
	@[ "$(CASES)" = world ] || testdata/conformance/run --kiln $(CURDIR)/target/kiln $(CASES)
	@[ -n "$(filter-out world,$(CASES))" ] || testdata/conformance/world --kiln $(CURDIR)/target/kiln

## demo: 15 Python packages become an image, twice; the second time nothing is downloaded
demo: build
	@KILN=$(CURDIR)/target/kiln testdata/demo

## bench: kiln, docker with BuildKit and buildah on the same inputs; target/bench/report.md. BENCH_FLAGS="--quick"
bench: build
	@testdata/setup bases test bench users
	@KILN=$(CURDIR)/target/kiln testdata/bases/make-bases
	@testdata/bench/bench --kiln $(CURDIR)/target/kiln $(BENCH_FLAGS)
	@testdata/bench/ids --kiln $(CURDIR)/target/kiln

## bases: the base images that tests and benches start from
bases:
	@[ -n "$$KILN" ] || [ -n "$$BUILDER" ] || cargo build --package kiln-cli
	@testdata/bases/make-bases

## clean-store: what demos, experiments and benches left behind; bases and cargo's results stay
clean-store:
	@testdata/discard target/demo target/experiments target/bench/stores target/bases/*/store
