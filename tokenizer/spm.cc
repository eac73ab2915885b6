#include "tokenizer/spm.h"
#include <algorithm>
#include <exception>
#include <memory>
#include <sentencepiece_processor.h>
#include <vector>

/* Nothing C++ leaves this file: exceptions and Status end as struct err. */
struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

int spm_open(struct spm **out, const void *proto, size_t n, struct err *err) {
    try {
        std::unique_ptr<spm> s(new spm);
        auto status = s->processor.LoadFromSerializedProto({static_cast<const char *>(proto), n});
        if (!status.ok()) return fail(err, "libsentencepiece: %s", status.error_message());
        *out = s.release();
        return 0;
    } catch (const std::exception &e) {
        return fail(err, "libsentencepiece: %s", e.what());
    }
}

void spm_close(struct spm *s) { delete s; }

int spm_n(const struct spm *s) { return s->processor.GetPieceSize(); }

long spm_encode(const struct spm *s, const char *text, size_t n, int32_t *ids, size_t cap, struct err *err) {
    try {
        std::vector<int> v;
        auto status = s->processor.Encode({text, n}, &v);
        if (!status.ok()) return fail(err, "libsentencepiece: %s", status.error_message());
        if (v.size() <= cap) std::copy(v.begin(), v.end(), ids);
        return static_cast<long>(v.size());
    } catch (const std::exception &e) {
        return fail(err, "libsentencepiece: %s", e.what());
    }
}
