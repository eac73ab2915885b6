"""gguf.py - writes GGUF version 3 files: metadata, then tensors as F32, F16 or Q8_0, each aligned
to 32 bytes.

    w = Writer()
    w.set("general.architecture", "llama")
    w.add("token_embd.weight", array, "q8_0")
    w.write(path)

A metadata value is str, bool, int (uint32), float (float32), or a list of one of these; Int32 makes
a list of int32."""
import struct
import numpy as np

ALIGNMENT = 32
TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


class Int32(int): pass


def string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def typed(v):
    """(type number, bytes) of a metadata value"""
    if isinstance(v, (list, tuple)):
        items = [typed(x) for x in v]
        return ARRAY, struct.pack("<IQ", items[0][0], len(items)) + b"".join(b for _, b in items)
    if isinstance(v, (str, bytes)): return STRING, string(v)
    if isinstance(v, bool): return BOOL, struct.pack("<?", v)
    if isinstance(v, Int32): return INT32, struct.pack("<i", v)
    if isinstance(v, int): return UINT32, struct.pack("<I", v)
    return FLOAT32, struct.pack("<f", v)


def q8_0(x):
    """Blocks of 32: an f16 scale, then 32 int8."""
    if x.shape[-1] % 32: raise ValueError(f"Q8_0 wants rows of a multiple of 32, got {x.shape[-1]}")
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    codes = np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = scale.astype(np.float16).view(np.uint8)
    out[:, 2:] = np.clip(np.rint(codes), -127, 127).astype(np.int8).view(np.uint8)
    return out.tobytes()


class Writer:
    def __init__(self): self.metadata, self.tensors = [], []

    def set(self, key, value): self.metadata.append((key, value))

    def add(self, name, array, kind="f32"):
        """A row-major array; GGUF lists its dimensions fastest first."""
        x = np.ascontiguousarray(array, np.float32)
        data = (q8_0(x) if kind == "q8_0"
                else x.astype(np.float16 if kind == "f16" else np.float32).tobytes())
        self.tensors.append((name, x.shape[::-1], TYPES[kind], data))

    def write(self, path):
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        for key, value in self.metadata:
            kind, data = typed(value)
            head += string(key) + struct.pack("<I", kind) + data
        at = 0
        for name, dims, kind, data in self.tensors:
            head += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
            at += -(-len(data) // ALIGNMENT) * ALIGNMENT
        with open(path, "wb") as f:
            f.write(head + b"\0" * (-len(head) % ALIGNMENT))
            for *_, data in self.tensors: f.write(data + b"\0" * (-len(data) % ALIGNMENT))
