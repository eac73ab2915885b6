#!/usr/bin/env python3
"""export.py - a trained model as a GGUF file of architecture llama, its tokenizer inside.

    python3 export.py run/model.pt run/tokenizer.model OUT.gguf [--type f32|f16|q8_0] [--name NAME]

Pairs that do not rotate get a frequency factor of 1e30 in rope_freqs.weight. A model trained with
the S2 mask says so in needle.s2.*, and the engine then runs it in that mode."""
import argparse
import numpy as np
import sentencepiece
import model
from gguf import Int32, Writer

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6             # kinds of tokens
FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7}


def tokenizer(w, path):
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    ids = range(sp.get_piece_size())
    def kind(i):
        return (UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i)
                else BYTE if sp.is_byte(i) else NORMAL)
    w.set("tokenizer.ggml.model", "llama")
    w.set("tokenizer.ggml.tokens", [sp.id_to_piece(i) for i in ids])
    w.set("tokenizer.ggml.scores", [float(sp.get_score(i)) for i in ids])
    w.set("tokenizer.ggml.token_type", [Int32(kind(i)) for i in ids])
    for name, i in (("bos", sp.bos_id()), ("eos", sp.eos_id()), ("unknown", sp.unk_id())):
        w.set(f"tokenizer.ggml.{name}_token_id", i)
    w.set("tokenizer.ggml.add_bos_token", True)
    w.set("tokenizer.ggml.add_eos_token", False)
    w.set("tokenizer.ggml.add_space_prefix", True)


def describe(w, s, name, kind, context):
    w.set("general.architecture", "llama")
    w.set("general.name", name)
    w.set("general.file_type", FILE_TYPE[kind])
    for key, value in {
            "context_length": context, "embedding_length": s.width, "block_count": s.layers,
            "feed_forward_length": s.ff, "attention.head_count": s.heads,
            "attention.head_count_kv": s.kv_heads, "attention.key_length": s.head_dim,
            "attention.value_length": s.head_dim, "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": s.head_dim, "rope.freq_base": float(s.rope_base),
            "vocab_size": s.vocabulary}.items():
        w.set("llama." + key, value)
    if s.s2_block:
        for key, value in {"block_size": s.s2_block, "local_blocks": s.s2_local,
                           "vert_stride": s.s2_stride, "head_offset": s.s2_offset,
                           "phase_by_kv_head": 1, "dense_first": s.s2_dense,
                           "dense_every_n": 0}.items():
            w.set("needle.s2." + key, value)


def weights(w, m, kind):
    s = m.shape
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    def put(name, tensor, k=kind): w.add(name, tensor.detach().numpy(), k)
    factors = np.full(s.head_dim // 2, 1e30, np.float32)
    factors[list(s.pairs)] = 1
    w.add("rope_freqs.weight", factors)
    put("token_embd.weight", m.embedding)
    put("output_norm.weight", m.last_norm, "f32")
    for l in range(s.layers):
        b = f"blk.{l}."
        put(b + "attn_norm.weight", m.attn_norm[l], "f32")
        put(b + "ffn_norm.weight", m.ff_norm[l], "f32")
        for part, rows in (("q", slice(0, q)), ("k", slice(q, q + kv)), ("v", slice(q + kv, None))):
            put(f"{b}attn_{part}.weight", m.qkv[l][rows])
        put(b + "attn_output.weight", m.out[l])
        put(b + "ffn_gate.weight", m.gate_up[l][:s.ff])
        put(b + "ffn_up.weight", m.gate_up[l][s.ff:])
        put(b + "ffn_down.weight", m.down[l])


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("checkpoint")
    p.add_argument("tokenizer")
    p.add_argument("out")
    p.add_argument("--type", choices=FILE_TYPE, default="q8_0")
    p.add_argument("--name", default="needle-s")
    p.add_argument("--context", type=int, default=65536)
    o = p.parse_args()
    m, _ = model.load(o.checkpoint)
    w = Writer()
    describe(w, m.shape, o.name, o.type, o.context)
    tokenizer(w, o.tokenizer)
    weights(w, m, o.type)
    w.write(o.out)


if __name__ == "__main__": main()
