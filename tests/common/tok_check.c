#include "tests/common/tok_check.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct tokenizer *tok_must(const struct vocab_file *f) {
    struct err err = { .msg = "" };
    struct tokenizer *t = vocab_file_open(f, &err);
    if (!t) fail_msg("%s", err.msg);
    return t;
}

void tok_pieces(const struct tokenizer *t, const char *text, size_t n, int flags,
                const char *want) {
    struct err err = { .msg = "" };
    int32_t *ids;
    int count = tok_encode(t, text, n, flags, &ids, &err);
    if (count < 0) fail_msg("'%s': %s", text, err.msg);
    char got[4096] = "";
    size_t m = 0;
    for (int i = 0; i < count; i++) {
        size_t len;
        const char *p = tok_piece(t, ids[i], &len);
        if (i) got[m++] = '|';
        assert_true(m + len + 2 < sizeof got);
        memcpy(got + m, p, len);
        m += len;
    }
    got[m] = 0;
    free(ids);
    if (strcmp(got, want)) fail_msg("'%s' became %s, wanted %s", text, got, want);
}

char *tok_text(const struct tokenizer *t, const int32_t *ids, int n, bool special, size_t *size) {
    struct tok_stream s = { .n_held = 0 };
    char *out = malloc((tok_max_piece(t) + 16) * ((size_t)n + 2));
    size_t m = 0;
    assert_non_null(out);
    for (int i = 0; i < n; i++) m += tok_decode(t, &s, ids[i], special, out + m);
    m += tok_flush(&s, out + m);
    out[m] = 0;
    if (size) *size = m;
    return out;
}

uint32_t tok_random(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return (uint32_t)(*s >> 32);
}
