# Every task of this project. `make` alone tells them; CI calls `check` and `test` and nothing else.

.DEFAULT_GOAL := help
# Programs that run in containers; cargo does not know them (see build.rs).
PROGRAMS := boilerplates/hello/src/main.rs $(wildcard sandbox/main.rs)

.PHONY: help up test check bench soak fuzz

help: ## Tell what can be made (this text)
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET, where TARGET is one of" } \
		/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Install what is missing, build, and run Dormouse with the demo application; Ctrl-C stops it
	@scripts/install.sh
	cargo build --release --locked
	@exec scripts/with-docker.sh "$${CARGO_TARGET_DIR:-target}/release/dormouse" up --demo

test: ## Run all tests, those on real Docker and real git too
	@scripts/install.sh tests
	@scripts/tools.sh cargo-nextest promtool nginx
	@scripts/python.sh >/dev/null
	promtool test rules docs/alerts/dormouse_test.yml
	scripts/with-docker.sh cargo nextest run --workspace --locked --all-features
	cargo test --workspace --locked --doc --quiet

# Seen green, one or two at a time on two busy cores: 1000 kills 7 to 8 min, 50 on Docker 4 min, all passings of the walk 5 to 6 min,
# 1200 sleeps 40 s, 100 turns 30 s, 30 on Docker 90 s. The failures of Docker: 4 min for each list of rounds, 40 s for the hang,
# 90 s for what was up for long. The 100 upgrades were not seen whole yet.
# Who is root has what every test needs: a test that would only say so fails here.
soak: export DORMOUSE_TEST_ALL ?= $(if $(filter 0,$(shell id -u)),1)
soak: ## Run the long forms of tests (abrupt ends, upgrades, Docker's failures); for half an hour
	@scripts/install.sh tests
	@scripts/tools.sh cargo-nextest
	DORMOUSE_KILLS=1000 DORMOUSE_KILLS_DOCKER=50 DORMOUSE_PASSINGS=100 DORMOUSE_SLEEPS=1200 DORMOUSE_TURNS=100 \
		DORMOUSE_TURNS_DOCKER=30 scripts/with-docker.sh \
		cargo nextest run --profile soak --workspace --locked --all-features --ignore-default-filter \
		-E 'test(crash::) or test(/soak::/) or test(/^addresses::/)'

check: ## Check format, lints, documentation, licences, unused dependencies, and fuzz for some seconds
	@scripts/install.sh
	@scripts/tools.sh cargo-deny cargo-machete cargo-fuzz
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path benches/handshake/Cargo.toml --check
	rustfmt --check --edition 2024 $(PROGRAMS)
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
	cargo deny --log-level error --locked check --hide-inclusion-graph bans licenses sources
	cargo machete
	scripts/fuzz.sh 4

fuzz: ## Feed made-up bytes to whatever reads bytes from outside; SECONDS=3600 for an hour each
	@scripts/install.sh
	@scripts/tools.sh cargo-fuzz
	scripts/fuzz.sh $(or $(SECONDS),60)

bench: ## Measure the road, the front and the table (docs/benchmarks.md); FULL=1 for more of everything
	@scripts/install.sh tests
	scripts/with-docker.sh cargo bench --workspace --locked --bench road -- $(if $(FULL),--full)
	cargo bench --workspace --locked --bench front -- $(if $(FULL),--full)
	cargo bench --workspace --locked --bench apply
	cargo run --release --locked --manifest-path benches/handshake/Cargo.toml
