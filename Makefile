# Every target is one line that calls llmft; CI calls the same targets. RECIPE chooses the model.
RECIPE ?= recipes/demo-llama.yaml
QUANT  ?= Q4_0
NAME    = $(shell sed -n 's/^name: *//p' $(RECIPE))
PYTHON ?= python3
BIN     = .venv/bin
CALLS   = data/prepared/calls.jsonl
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo data base sft evaluate gate export-gguf verify gpt4all chat test check bench clean
.DELETE_ON_ERROR:

help:            ## show this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1 — /p' Makefile

setup: .venv/ready  ## virtual environment with the versions that were tested together

# llama.cpp is compiled without its tools and multimodal parts, which we do not use: 2 minutes instead of 7.
.venv/ready: pyproject.toml constraints.txt packaging/llama-only.cmake
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_ALL_WARNINGS=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/packaging/llama-only.cmake $(CMAKE_ARGS)" \
	    $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: setup data  ## the whole way on the embedded base, ending in a chat transcript
	$(BIN)/llmft sft $(RECIPE) --force
	$(BIN)/llmft export $(RECIPE) --force
	$(BIN)/llmft verify $(RECIPE)
	$(BIN)/llmft evaluate $(RECIPE) --quick
	$(BIN)/llmft chat export/$(NAME)/$(NAME)-$(QUANT).gguf < data/sample/chat.txt

data: setup      ## make the demonstration calls and prepare them
	$(BIN)/llmft synthesize --count 4000 --seed 11 --output $(CALLS)
	$(BIN)/llmft prepare $(CALLS) --output data/prepared/demo

base: setup      ## pretrain both embedded bases anew (two and a half hours on 2 quiet cores)
	$(BIN)/llmft synthesize --corpus --count 144000 --seed 1 --output data/corpus/first.jsonl
	$(BIN)/llmft synthesize --corpus --count 26000 --seed 4 --output data/corpus/second.jsonl
	$(BIN)/llmft base gptj --corpus data/corpus/first.jsonl --steps 6600 --output data/corpus/gptj
	$(BIN)/llmft base gptj --corpus data/corpus/second.jsonl --start data/corpus/gptj --steps 1400 --output data/base/gptj
	$(BIN)/llmft base llama --corpus data/corpus/first.jsonl --steps 9000 --output data/corpus/llama
	$(BIN)/llmft base llama --corpus data/corpus/second.jsonl --start data/corpus/llama --steps 1400 --output data/base/llama

sft: setup       ## fine-tune RECIPE with QLoRA
	@test -f data/prepared/demo/report.json || $(MAKE) data
	$(BIN)/llmft sft $(RECIPE) $(ARGS)

evaluate: setup  ## figures of base, adapter, each GGUF and simpler rivals, and the page that tells of them
	$(BIN)/llmft evaluate $(RECIPE)

gate: setup  ## judge the evaluated models by recipes/gate.yaml
	$(BIN)/llmft gate $(RECIPE)

export-gguf: setup  ## merge and quantise in one pass
	$(BIN)/llmft export $(RECIPE) --force

verify: setup    ## prove that each GGUF is the model that was trained
	$(BIN)/llmft verify $(RECIPE)

gpt4all: setup   ## copy the QUANT file into GPT4All desktop's models folder
	$(BIN)/llmft install-gpt4all export/$(NAME)/$(NAME)-$(QUANT).gguf --force

chat: setup      ## chat with the QUANT file in the terminal
	$(BIN)/llmft chat export/$(NAME)/$(NAME)-$(QUANT).gguf

test: setup      ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: setup     ## lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup     ## measured comparisons; results in bench/results/
	$(BIN)/python bench/main_job.py $(RECIPE)

clean:           ## remove what the stages made; the environment and the bases stay
	rm -rf data/prepared data/corpus runs export/*/
