#!/usr/bin/env python3
"""Writes quant/decode.tsv and quant/encode.tsv, the truth for tests/test_quant.c.

Needs numpy and gguf (the Python package of llama.cpp). Run from any folder:
    python3 tests/golden/make_quant_goldens.py
decode.tsv: type, packed bytes (hex), little-endian float32 values of gguf.dequantize (hex).
encode.tsv: type, float32 input (hex), packed bytes (hex): gguf.quantize where it has the type; q4_0,
whose rounding step is evaluated in float64, and iq4_nl as in harness/kernel/quant.h.
"""
import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent / "quant"
# type: blocks in the file, offsets of the f16 fields in a block
BLOCKS = {
    "F32": (16, ()), "F16": (48, ()), "BF16": (48, ()),
    "Q4_0": (4, (0,)), "Q4_1": (4, (0, 2)), "Q5_0": (4, (0,)), "Q5_1": (4, (0, 2)),
    "Q8_0": (4, (0,)), "Q4_K": (2, (0, 2)), "Q5_K": (2, (0, 2)), "Q6_K": (2, (208,)),
    "IQ4_NL": (4, (0,)),
}


def packed_blocks(rng, name, n, f16_fields):
    """Random codes under plausible scales; the first block has a subnormal scale."""
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    if name == "F32":
        return rng.standard_normal(n).astype("<f4").view(np.uint8)
    if name == "F16":
        edge = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00], "<u2")
        return np.concatenate([edge, rng.standard_normal(n - 8).astype("<f2").view("<u2")]).view(np.uint8)
    if name == "BF16":
        return (rng.standard_normal(n).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in f16_fields:
        scale = (rng.standard_normal(n) * 0.01).astype("<f2")
        scale[0] = np.float16(3e-6)
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
    return blocks.reshape(-1)


def q4_0_bytes(x):
    """One block of 32 values."""
    m = x[np.abs(x).argmax()]
    d = np.float32(m / np.float32(-8))
    inv = np.float32(0) if d == 0 else np.float32(1) / d
    q = np.trunc(x.astype(np.float64) * np.float64(inv) + 8.5).clip(0, 15).astype(np.uint8)
    return np.concatenate([np.array([d], "<f2").view(np.uint8), q[:16] | q[16:] << 4])


IQ4_NL = np.array(gguf.quants.IQ4_NL.kvalues, "<f4")


def iq4_nl_bytes(x):
    """One block of 32 values, in float32 throughout."""
    m = x[np.abs(x).argmax()]
    if np.abs(m) < 1e-15:
        return np.array([0, 0] + [0x88] * 16, np.uint8)
    inv = np.float32(1) / np.float32(m / IQ4_NL[0])
    below = np.float32(x * inv)[:, None] - IQ4_NL[None]
    q = 15 - np.abs(below)[:, ::-1].argmin(axis=1)  # of two equally near ones the upper
    along = square = np.float32(0)
    for v, k in zip(x, IQ4_NL[q]):
        w = np.float32(v * v)
        along = np.float32(along + np.float32(np.float32(w * k) * v))
        square = np.float32(square + np.float32(np.float32(w * k) * k))
    d = np.array([along / square], "<f2").view(np.uint8)
    q = q.astype(np.uint8)
    return np.concatenate([d, q[:16] | q[16:] << 4])


def encode_inputs(rng):
    yield np.zeros(32, "<f4")
    yield np.where(np.arange(32) == 5, -1, 0).astype("<f4")
    yield np.tile([1, -1], 16).astype("<f4")  # two elements of the same magnitude
    yield (np.arange(32) - 16).astype("<f4") / 2  # rounding ties
    for scale in (1e-6, 1e-3, 1, 1e3):
        yield (rng.standard_normal(32) * scale).astype("<f4")


def main():
    rng = np.random.default_rng(20240611)
    OUT.mkdir(exist_ok=True)
    with open(OUT / "decode.tsv", "w", encoding="ascii") as f:
        for name, (n, fields) in BLOCKS.items():
            raw = packed_blocks(rng, name, n, fields)
            if name == "F32":
                values = raw.view("<f4")
            else:
                values = gguf.dequantize(raw, gguf.GGMLQuantizationType[name])
            print(name.lower(), raw.tobytes().hex(), values.astype("<f4").tobytes().hex(), sep="\t", file=f)
    with open(OUT / "encode.tsv", "w", encoding="ascii") as f:
        for x in encode_inputs(rng):
            q8 = gguf.quantize(x, gguf.GGMLQuantizationType.Q8_0)
            print("q8_0", x.tobytes().hex(), q8.tobytes().hex(), sep="\t", file=f)
            print("q4_0", x.tobytes().hex(), q4_0_bytes(x).tobytes().hex(), sep="\t", file=f)
            print("iq4_nl", x.tobytes().hex(), iq4_nl_bytes(x).tobytes().hex(), sep="\t", file=f)
            for name in ("BF16", "Q4_1", "Q5_0", "Q5_1"):
                q = gguf.quantize(x, gguf.GGMLQuantizationType[name])
                print(name.lower(), x.tobytes().hex(), q.tobytes().hex(), sep="\t", file=f)
            print("f16", x.tobytes().hex(), x.astype("<f2").tobytes().hex(), sep="\t", file=f)


if __name__ == "__main__":
    main()
