# Each target is one line of tools/dev.py, which also runs without make: python3 tools/dev.py run
PYTHON ?= python3

.PHONY: help setup run test check bench web lock docs
help:  ; @$(PYTHON) tools/dev.py help
setup: ; @$(PYTHON) tools/dev.py setup
run:   ; @$(PYTHON) tools/dev.py run $(ARGS)
test:  ; @$(PYTHON) tools/dev.py test $(ARGS)
check: ; @$(PYTHON) tools/dev.py check
bench: ; @$(PYTHON) tools/dev.py bench $(ARGS)
web:   ; @$(PYTHON) tools/dev.py web
lock:  ; @$(PYTHON) tools/dev.py lock $(ARGS)
docs:  ; @$(PYTHON) tools/dev.py docs
