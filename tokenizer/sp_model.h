/* sp_model.h - SentencePiece's ModelProto, the fields that matter here, written and read by hand.
 *
 * Protocol buffers: a message is a run of fields, each a varint (field << 3 | wire type) and
 * a value: wire type 0 a varint, 1 eight bytes, 2 a length and that many bytes, 5 four bytes.
 *   ModelProto      1 piece (repeated message), 2 trainer_spec, 3 normalizer_spec
 *   SentencePiece   1 piece, 2 score (f32), 3 type (as enum tok_type)
 *   TrainerSpec     3 model_type (1 unigram, 2 BPE), 24 treat_whitespace_as_suffix,
 *                   35 byte_fallback, 40 unk_id, 41 bos_id, 42 eos_id, 43 pad_id
 *   NormalizerSpec  2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
 *                   5 escape_whitespaces */
#ifndef TOKENIZER_SP_MODEL_H
#define TOKENIZER_SP_MODEL_H
#include "tokenizer/vocab.h"

/* A BPE model of the vocabulary's pieces with their ids. Text goes through as it is: no prefix,
 * no white space removed (sp_text.c sees to both). Pieces that plain text must never become (not
 * vocab_is_plain) keep their id under a spelling that no text reaches. When the vocabulary has
 * no unknown piece, one is added behind the last, so id v->n means "no piece for this". *proto
 * is malloc'd. */
int sp_model_build(const struct vocab *v, char **proto, size_t *n, struct err *);

/* Reads a tokenizer.model into v (as vocab_load does from a GGUF). *plain: a BPE model without a
 * character map of its own, so that sp_model_build of v means the same; otherwise
 * libsentencepiece must be given these very bytes. */
int sp_model_read(struct vocab *v, bool *plain, const char *proto, size_t n, const char *name,
                  struct err *);

#endif
