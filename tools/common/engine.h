/* engine.h - what run.c and the tools share: the flags that say which model to
 * load and how, and the loading itself.
 *
 * A tool puts ENGINE_FLAGS(args) into its flag table, parses, checks (engine_check), opens
 * (engine_open), loads (engine_load), and makes as many sessions as it wants with
 * engine_session_options. Nothing here prints. */
#ifndef TOOLS_COMMON_ENGINE_H
#define TOOLS_COMMON_ENGINE_H
#include <stdbool.h>
#include "base/err.h"
#include "base/flags.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/session.h"
#include "tokenizer/tokenizer.h"

struct engine_args {
    const char *model, *tokenizer, *kernels;
    int threads, threads_batch;    /* 0: cpu_default_threads(); threads_batch 0: as threads */
    int batch, ubatch;             /* tokens per chunk: the smaller of the two */
    const char *type_k, *type_v;
    const char *attn, *attn_prefill, *attn_decode;     /* NULL: as the model was trained */
    bool no_mmap, mlock, no_repack, check_tensors;
    struct flag_list set;          /* metadata instead of the file's own: see gguf_set */
    bool no_tokenizer;             /* by tools that take token ids: the file need not have one */
    bool flash;                    /* accepted, without effect: there is one attention kernel */
    bool gpu;                      /* a GPU flag was given: worth one warning */
    double rope_freq_scale;
    struct rope_override rope;
};
#define ENGINE_ARGS { .batch = 2048, .ubatch = 512, .type_k = "f16", .type_v = "f16", \
                      .rope = ROPE_OVERRIDE_NONE }

/* For tools that take several modes and list --attn themselves; its heading
 * comes last of what --help shows. */
#define ENGINE_FLAGS_NO_ATTN(a) \
    { "", FLAG_HEADING, 0, 0, "Model and machine:", 0, 0 }, \
    { "-m --model", FLAG_STR, &(a).model, "FILE", \
      "the GGUF file, instead of the positional MODEL", 0, 0 }, \
    { "--tokenizer", FLAG_STR, &(a).tokenizer, "FILE", \
      "a SentencePiece tokenizer.model in place of the file's own", 0, 0 }, \
    { "-t --threads", FLAG_INT, &(a).threads, "N", \
      "threads (default: physical cores allowed)", 1, 1024 }, \
    { "-tb --threads-batch", FLAG_INT, &(a).threads_batch, "N", \
      "threads for prefill (default: as -t)", 1, 1024 }, \
    { "--kernels", FLAG_STR, &(a).kernels, "NAME", \
      "scalar, avx2, avx512 or amx (default: the widest)", 0, 0 }, \
    { "-b --batch-size", FLAG_INT, &(a).batch, "N", \
      "tokens per chunk of prefill (default 512; at most -ub)", 1, 1 << 20 }, \
    { "-ub --ubatch-size", FLAG_INT, &(a).ubatch, "N", NULL, 1, 1 << 20 }, \
    { "--no-mmap", FLAG_ON, &(a).no_mmap, NULL, "read the file instead of mapping it", 0, 0 }, \
    { "--mmap", FLAG_OFF, &(a).no_mmap, NULL, NULL, 0, 0 }, \
    { "--mlock", FLAG_ON, &(a).mlock, NULL, "keep the weights in memory", 0, 0 }, \
    { "--no-repack", FLAG_ON, &(a).no_repack, NULL, \
      "compute with the weights as they lie in the file", 0, 0 }, \
    { "--check-tensors", FLAG_ON, &(a).check_tensors, NULL, \
      "refuse a file with weights that are no finite numbers", 0, 0 }, \
    { "--override-kv", FLAG_LIST, &(a).set, "K=T:V", \
      "set the metadata key K; T: int, float, bool or str (may repeat)", 0, 0 }, \
    { "-fa --flash-attn", FLAG_SWITCH, &(a).flash, NULL, NULL, 0, 0 }, \
    { "--rope-scaling", FLAG_STR, &(a).rope.scaling, "NAME", \
      "none, linear or yarn (default: as the file says)", 0, 0 }, \
    { "--rope-scale", FLAG_FLOAT, &(a).rope.factor, "X", "context stretched by X", 1e-3, 1e6 }, \
    { "--rope-freq-scale", FLAG_FLOAT, &(a).rope_freq_scale, "X", NULL, 1e-6, 1e3 }, \
    { "--rope-freq-base", FLAG_FLOAT, &(a).rope.freq_base, "X", \
      "base of the rotation", 1e-3, 1e12 }, \
    { "--yarn-orig-ctx", FLAG_INT, &(a).rope.orig_ctx, "N", \
      "YaRN: context of the original training", 1, 1 << 30 }, \
    { "--yarn-ext-factor", FLAG_FLOAT, &(a).rope.ext_factor, "X", NULL, 0, 1e6 }, \
    { "--yarn-attn-factor", FLAG_FLOAT, &(a).rope.attn_factor, "X", NULL, 0, 1e6 }, \
    { "--yarn-beta-fast", FLAG_FLOAT, &(a).rope.beta_fast, "X", NULL, 0, 1e6 }, \
    { "--yarn-beta-slow", FLAG_FLOAT, &(a).rope.beta_slow, "X", NULL, 0, 1e6 }, \
    { "-ngl --gpu-layers --n-gpu-layers -sm --split-mode -ts --tensor-split -mg --main-gpu " \
      "-ot --override-tensor --device -dev", \
      FLAG_IGNORED, &(a).gpu, "X", NULL, 0, 0 }, \
    { "", FLAG_HEADING, 0, 0, "Attention and its cache:", 0, 0 }, \
    { "-ctk --cache-type-k", FLAG_STR, &(a).type_k, "T", \
      "keys stored as f32 f16 bf16 q8_0 q4_0 (default f16)", 0, 0 }, \
    { "-ctv --cache-type-v", FLAG_STR, &(a).type_v, "T", "values, likewise", 0, 0 }

#define ENGINE_FLAGS(a) \
    ENGINE_FLAGS_NO_ATTN(a), \
    { "--attn", FLAG_STR, &(a).attn, "MODE[,key=value...]", \
      "how to attend (help lists them; default as the file says, else full)", 0, 0 }, \
    { "--attn-prefill", FLAG_STR, &(a).attn_prefill, "MODE,...", \
      "another mode while reading the prompt", 0, 0 }, \
    { "--attn-decode", FLAG_STR, &(a).attn_decode, "MODE,...", \
      "another mode while generating", 0, 0 }

struct engine {
    struct engine_args args;
    struct gguf *file;
    struct model *model;
    struct tokenizer *tok;
    const struct kernels *kernels;
    enum dtype type_k, type_v;
};

/* Checks what the flags say without opening any file: cache types, kernels, threads, metadata.
 * 0, or -1: a wrong command line. */
int engine_check(struct engine *, const struct engine_args *, struct err *);
/* The type a cache may have, by its name; `flag` is for the message. */
int engine_cache_type(const char *flag, const char *name, enum dtype *, struct err *);
/* The attention modes the flags name, before any file is opened. */
int engine_check_attn(const struct engine_args *, struct err *);
/* After engine_check: opens the file and binds model and tokenizer; no weight is read
 * yet, unless tensors are to be checked. */
int engine_open(struct engine *, struct err *);
/* Reads the weights into the form the kernels like. */
int engine_load(struct engine *, struct err *);
void engine_close(struct engine *);
/* Session options as the flags have them. */
struct session_options engine_session_options(const struct engine *, int n_ctx);
/* Which OpenMP team size comes next. */
void engine_threads_prefill(const struct engine *);
void engine_threads_decode(const struct engine *);

/* "1.4 M", "637 MiB": a count or a size for people. */
const char *human_bytes(char buf[32], double bytes);
const char *human_count(char buf[32], double n);

#endif
