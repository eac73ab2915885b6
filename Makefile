# needle.c: `make` builds ./run and bin/*, `make demo` and `make test` install what is missing first.
# MODE=release|debug (debug: ASan and UBSan), OPENBLAS=1 links OpenBLAS for F32/F16 prefill.
MODE ?= release
B := build/$(MODE)$(if $(OPENBLAS),-openblas)
CC ?= gcc
CXX ?= g++
VERSION := 0.1.0
WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wvla
OPT-release := -O3 -g1
OPT-debug := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer
CPPFLAGS := -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DNEEDLE_VERSION='"$(VERSION)"' $(if $(OPENBLAS),-DHAVE_OPENBLAS)
CFLAGS := -std=c11 $(WARN) $(OPT-$(MODE)) -fopenmp
CXXFLAGS := -std=c++17 $(WARN) $(OPT-$(MODE))
LDLIBS := -lsentencepiece -lpcre2-8 -lcjson -lpng -lz $(if $(OPENBLAS),-lopenblas) -lstdc++ -lm

LIB_SRC := $(wildcard base/*.c kernels/*.c kvcache/*.c attention/*.c tokenizer/*.c tokenizer/*.cc model/*.c)
X86_ONLY := %_avx2.c %_avx512.c %_amx.c
ifneq ($(firstword $(subst -, ,$(shell $(CC) -dumpmachine))),x86_64)
LIB_SRC := $(filter-out $(X86_ONLY),$(LIB_SRC))
endif
LIB_OBJ := $(patsubst %,$(B)/%.o,$(LIB_SRC))
TOOLS := $(patsubst tools/%.c,bin/%,$(wildcard tools/*.c))
TOOL_OBJ := $(patsubst %,$(B)/%.o,$(wildcard tools/common/*.c))
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
TEST_OBJ := $(patsubst %,$(B)/%.o,$(wildcard tests/common/*.c))

SUB := --no-print-directory -j$(shell nproc)

all: run $(TOOLS)
run: $(B)/run ; @ln -sf $< $@
bin/%: $(B)/tools/% ; @mkdir -p bin && ln -sf ../$< $@

$(B)/libneedle.a: $(LIB_OBJ) ; @rm -f $@ && ar rcs $@ $^
$(B)/libtools.a: $(TOOL_OBJ) ; @rm -f $@ && ar rcs $@ $^
$(B)/libtests.a: $(TEST_OBJ) ; @rm -f $@ && ar rcs $@ $^
LIBS := $(B)/libtools.a $(B)/libneedle.a
$(B)/run: $(B)/run.c.o $(LIBS) ; $(CC) $(CFLAGS) $^ $(LDLIBS) -o $@
$(B)/tools/%: $(B)/tools/%.c.o $(LIBS) ; $(CC) $(CFLAGS) $^ $(LDLIBS) -o $@
$(B)/tests/%: $(B)/tests/%.c.o $(B)/libtests.a $(LIBS) ; $(CC) $(CFLAGS) $^ -lcmocka $(LDLIBS) -o $@

$(B)/%.c.o: %.c ; @mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -MMD -MP -c $< -o $@
$(B)/%.cc.o: %.cc ; @mkdir -p $(@D) && $(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@
$(B)/%_avx2.c.o: ISA := -mavx2 -mfma -mf16c
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx2 -mfma -mf16c
$(B)/%_avx512.c.o: ISA := $(AVX512)
$(B)/%_amx.c.o: ISA := $(AVX512) -mamx-tile -mamx-int8 -mamx-bf16 -mavx512bf16 -mavx512fp16
# bin/bench names the commit it was built from: that object alone is made again after a commit.
$(B)/tools/common/bench_print.c.o: CPPFLAGS += -DNEEDLE_COMMIT='"$(or $(shell git rev-parse --short=9 HEAD 2>/dev/null),$(VERSION))"'
$(B)/tools/common/bench_print.c.o: $(wildcard $(shell git rev-parse --git-path logs/HEAD 2>/dev/null))
-include $(LIB_OBJ:.o=.d) $(wildcard $(B)/*.d $(B)/tools/*.d $(B)/tools/common/*.d $(B)/tests/*.d $(B)/tests/common/*.d)

deps: ; @sh tools/deps.sh
test: deps ; @$(MAKE) $(SUB) check
check: all $(TESTS) ; @sh tests/run.sh $(B)
demo: deps ; @$(MAKE) $(SUB) all && sh tools/demo.sh
clean: ; rm -rf build bin run
.PHONY: all deps test check demo clean
.SECONDARY:
