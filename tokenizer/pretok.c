#include "tokenizer/pretok.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The patterns are those of the tokenizers themselves. Characters newer than the PCRE2 in use
 * (10.42: Unicode 14) count as unassigned. White space as Unicode has it. PCRE2's own \s takes
 * U+180E too, which the tokenizers' engines do not. */
#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}" \
           "\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" WS "]"
#define NOT_S "[^" WS "]"
/* What most patterns share. Case is spelled out: caseless matching would take the long s for an
 * s. */
#define GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" S "+(?!" NOT_S ")"
#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define SPACES S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"
#define MARKS " ?[^" WS "\\p{L}\\p{N}]+"
#define FIRST "[^\\r\\n\\p{L}\\p{N}]?"
#define LETTERS FIRST "\\p{L}+"
#define LLAMA3(digits) CONTRACTION "|" LETTERS "|" digits "|" MARKS "[\\r\\n]*|" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(end) FIRST UPPER "*" LOWER "+" end "|" FIRST UPPER "+" LOWER "*" end
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define SENTENCE " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

/* The cased letters as DeepSeek LLM's tokenizer lists them (fewer than Unicode has by now). */
#define DEEPSEEK_LETTERS \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}" \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}" \
    "\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}" \
    "\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}" \
    "\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}" \
    "\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}" \
    "\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}" \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}" \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}" \
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}" \
    "\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}" \
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}" \
    "\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}" \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}" \
    "\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}" \
    "\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}" \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

enum { STAGES = 6, WITH_BOS = 1, WHOLE_WORDS = 2 };

/* Each stage cuts every piece that the stage before left into what its pattern matches and what
 * lies between. A stage sees nothing outside its piece. */
static const struct rule {
    const char *names;                             /* separated by spaces */
    int flags;
    const char *stage[STAGES];
} rules[] = {
    { "default", 0, { "[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
      WITH_BOS | WHOLE_WORDS, { LLAMA3("\\p{N}{1,3}") } },
    { "smaug-bpe dbrx chatglm-bpe glm4", 0, { LLAMA3("\\p{N}{1,3}") } },
    { "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan solar-open grok-2 kormo f2llmv2", 0,
      { LLAMA3("\\p{N}") } },
    { "qwen35", 0,
      { CONTRACTION "|" FIRST "[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
        SPACES } },
    { "gpt-2 phi-2 mpt olmo jais jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code "
      "roberta-bpe gigachat exaone4 trillion granite-docling a.x-4.0 mellum modern-bert", 0,
      { GPT2 } },
    { "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0,
      { "\\p{N}", GPT2 } },
    { "falcon", 0, { "[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]" } },
    { "tekken", WITH_BOS | WHOLE_WORDS, { CASED("") "|\\p{N}|" MARKS "[\\r\\n/]*|" SPACES } },
    { "gpt-4o llama4 kanana2 talkie minimax-m2", 0,
      { CASED("(?:" CONTRACTION ")?") "|\\p{N}{1,3}|" MARKS "[\\r\\n/]*|" SPACES } },
    { "deepseek-llm", 0,
      { "[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+",
        S "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
        "(?<!" S ")" S "+\\z", CJK, "\\p{N}+" } },   /* (?<!) saves a try per space of a long run */
    { "deepseek-coder", 0, { "[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", CJK, "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0,
      { "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
        "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
        " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES } },
    { "bloom poro-chat gpt3-finnish", 0, { SENTENCE } },
    { "viking", 0, { SENTENCE, "\\p{N}" } },
    { "chameleon", WITH_BOS,
      { "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
        "[\\p{P}!-/:-@\\[-`{-~]", GPT2 } },
    { "bailingmoe bailingmoe2 llada-moe", 0,
      { CONTRACTION "|" LETTERS "|\\p{N}|" MARKS "[\\r\\n]*|" S "*[\\r\\n]|" S "+(?!" NOT_S ")|"
        S "+" } },
    { "seed-coder", 0,
      { CONTRACTION "|" LETTERS "|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" SPACES } },
    { "minicpm5", WHOLE_WORDS, { "\\p{N}{1,3}", LLAMA3("\\p{N}+") } },
    { "jais-2", 0,
      { CONTRACTION "|" LETTERS "|\\p{N}{1,3}|" MARKS "[\\r\\n]*|" S "*[\\r\\n]+|"
        S "{512}(?!" NOT_S ")|" S "{256}(?!" NOT_S ")|" S "{128}(?!" NOT_S ")|"
        S "{64}(?!" NOT_S ")|" S "{32}(?!" NOT_S ")|" S "{16}(?!" NOT_S ")|"
        S "{8}(?!" NOT_S ")|" S "{4}(?!" NOT_S ")|" S "{1,2}(?!" NOT_S ")|" S } },
};

enum { N_RULES = sizeof rules / sizeof *rules };

struct pretok { pcre2_code *stage[STAGES]; int n; };

static const struct rule *find(const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < N_RULES && n; i++)
        for (const char *s = rules[i].names; (s = strstr(s, name)) != NULL; s += n)
            if ((s == rules[i].names || s[-1] == ' ') && (s[n] == ' ' || s[n] == 0))
                return &rules[i];
    return NULL;
}

bool pretok_ignores_merges(const char *name) {
    const struct rule *r = find(name);
    return r && r->flags & WHOLE_WORDS;
}

bool pretok_adds_bos(const char *name) {
    const struct rule *r = find(name);
    return r && r->flags & WITH_BOS;
}

static int refuse(const char *name, struct err *err) {
    char known[sizeof err->msg];
    int n = 0;
    for (int i = 0; i < N_RULES && n < (int)sizeof known; i++)
        n += snprintf(known + n, sizeof known - (size_t)n, "%s%s", i ? " " : "", rules[i].names);
    return fail(err, "tokenizer.ggml.pre is %.64s; known: %s", name, known);
}

int pretok_open(struct pretok **out, const char *name, struct err *err) {
    const struct rule *r = find(name);
    if (!r || strchr(name, ' ')) return refuse(name, err);
    struct pretok *t = calloc(1, sizeof *t);
    if (!t) return fail(err, "out of memory");
    for (; t->n < STAGES && r->stage[t->n]; t->n++) {
        int code;
        PCRE2_SIZE at;
        PCRE2_UCHAR why[128] = "";
        t->stage[t->n] = pcre2_compile((PCRE2_SPTR)r->stage[t->n], PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
        if (!t->stage[t->n]) {
            pcre2_get_error_message(code, why, sizeof why);
            fail(err, "PCRE2: stage %d of %s at %zu: %s", t->n, name, (size_t)at, (char *)why);
            pretok_close(t);
            return -1;
        }
        pcre2_jit_compile(t->stage[t->n], PCRE2_JIT_COMPLETE);     /* if none, it interprets */
    }
    *out = t;
    return 0;
}

void pretok_close(struct pretok *t) {
    if (!t) return;
    for (int i = 0; i < t->n; i++) pcre2_code_free(t->stage[i]);
    free(t);
}

struct split {
    const struct pretok *t;
    pcre2_match_data *match[STAGES];
    pcre2_match_context *limits;
    int (*word)(void *, const char *, size_t);
    void *to;
    struct err *err;
};

static int split_stage(struct split *s, int stage, const char *p, size_t n) {
    if (n == 0) return 0;
    if (stage == s->t->n) return s->word(s->to, p, n);
    size_t done = 0;
    while (done < n) {
        int rc = pcre2_match(s->t->stage[stage], (PCRE2_SPTR)p, n, done, PCRE2_NO_UTF_CHECK,
                             s->match[stage], s->limits);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR why[128] = "";
            pcre2_get_error_message(rc, why, sizeof why);
            return fail(s->err, "PCRE2: %s", (char *)why);
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match[stage]);
        size_t from = at[0], to = at[1];
        if ((rc = split_stage(s, stage + 1, p + done, from - done))) return rc;
        if ((rc = split_stage(s, stage + 1, p + from, to - from))) return rc;
        done = to;
    }
    return split_stage(s, stage + 1, p + done, n - done);
}

int pretok_split(const struct pretok *t, const char *text, size_t n,
                 int (*word)(void *to, const char *p, size_t n), void *to, struct err *err) {
    struct split s = { .t = t, .word = word, .to = to, .err = err };
    int rc = -1;
    s.limits = pcre2_match_context_create(NULL);
    for (int i = 0; i < t->n; i++) s.match[i] = pcre2_match_data_create(1, NULL);
    bool ready = s.limits;
    for (int i = 0; i < t->n; i++) ready = ready && s.match[i];
    if (!ready) fail(err, "out of memory");
    else {
        /* Megabytes of one kind of character are legal. */
        pcre2_set_match_limit(s.limits, UINT32_MAX);
        rc = split_stage(&s, 0, text, n);
    }
    for (int i = 0; i < t->n; i++) pcre2_match_data_free(s.match[i]);
    pcre2_match_context_free(s.limits);
    return rc;
}
