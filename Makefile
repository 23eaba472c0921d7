# The words people type. The work is done by meson and by the scripts in tools/.

BUILD  ?= build
PREFIX ?= /usr/local

.PHONY: help setup build demo check bench install clean

help:
	@echo 'make setup      install the Debian packages that are missing (tools/packages)'
	@echo 'make build      build husk, huskd and the guest into $(BUILD)/; they run from there'
	@echo 'make demo       show pods at work, with a private daemon; leaves nothing behind'
	@echo 'make check      build with gcc and clang, and run every test'
	@echo 'make bench      measure, and print the table of docs/performance.md'
	@echo 'make install    install under PREFIX=$(PREFIX), within DESTDIR if that is set'
	@echo 'make clean      remove what was built'

setup:
	@tools/setup

build: setup
	@tools/build $(BUILD)

demo: build
	@tools/demo $(BUILD)

check: setup
	@tools/check $(BUILD)

bench: build
	@tools/bench $(BUILD) $(BENCH_FLAGS)

install:
	@tools/install $(BUILD) $(PREFIX)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz
