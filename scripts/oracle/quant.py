"""Records how bitsandbytes quantises: the 8-bit dynamic maps and blocks, and NF4 with plain and with nested scales.

    python scripts/oracle/quant.py        writes engine/quant/testdata/quant.safetensors

For each matrix NAME: NAME is what is quantised; NAME.codes, NAME.absmax and NAME.decoded are bitsandbytes' with plain scales, NAME.nested.*
those of double quantisation. `decoded` is in the type of the matrix, as bitsandbytes' layers use it.
"""
import bitsandbytes.functional as F
import torch
from bnb_reference import default_kernels, quantize_blockwise
from safetensors.torch import save_file

torch.manual_seed(11)
kernels = default_kernels()
signed, unsigned = F.create_dynamic_map(True), F.create_dynamic_map(False)
out = {"map.signed": signed, "map.unsigned": unsigned}


def eight_bit(x, code, size=256):
    """The torch backend's codes, which must be the CUDA kernel's."""
    codes, absmax = kernels["quantize_blockwise"](x, code, size)
    cuda, scales = quantize_blockwise(x.numpy(), code.numpy(), size)
    assert (codes.numpy() == cuda).all() and (absmax.numpy() == scales).all(), "the backends differ"
    return codes, absmax


def nf4(name, w):
    codes, absmax = kernels["quantize_4bit"](w, 64, "nf4", torch.uint8)
    again, state = F.quantize_4bit(w, blocksize=64, quant_type="nf4")
    assert torch.equal(codes, again) and torch.equal(absmax, state.absmax)
    offset = absmax.mean()
    q, outer = eight_bit(absmax - offset, signed)
    out.update({name: w, f"{name}.codes": codes, f"{name}.absmax": absmax, f"{name}.decoded": decoded(codes, absmax, w)})
    nested = kernels["dequantize_blockwise"](q, outer, signed, 256, torch.float32) + offset
    out.update({f"{name}.nested.absmax": q, f"{name}.nested.outer": outer, f"{name}.nested.offset": offset.reshape(1),
                f"{name}.nested.decoded": decoded(codes, nested, w)})


def decoded(codes, absmax, like):
    """By the torch backend: the CPU library's decoding is wrong where blocks run on across rows (0.50.2, AVX-512)."""
    w = kernels["dequantize_4bit"](codes, absmax, 64, "nf4", like.shape, like.dtype)
    if like.shape[-1] % 64 == 0:
        state = F.QuantState(absmax=absmax, shape=like.shape, dtype=like.dtype, blocksize=64, quant_type="nf4")
        assert torch.equal(w, F.dequantize_4bit(codes, state)), "the backends differ"
    return w


nf4("bf16", (torch.randn(160, 160) * 0.02).to(torch.bfloat16))
nf4("f16", (torch.randn(48, 64) * torch.logspace(-4, 1, 48)[:, None]).to(torch.float16))
nf4("f32", torch.randn(64, 64) ** 3)
odd = torch.randn(7, 29)
odd[6, -11:] *= 0.1  # the short block
nf4("odd", odd)
for name, code, x in (("signed", signed, torch.randn(3000) ** 5), ("unsigned", unsigned, torch.randn(3000) ** 10)):
    x[512:768] = 0
    if code is unsigned:
        x = x.abs()
    codes, absmax = kernels["quantize_blockwise"](x, code, 256)
    cuda, scales = quantize_blockwise(x.numpy(), code.numpy(), 256)
    same = torch.from_numpy(cuda) == codes
    same[512:768] = True  # zeros: the backends differ in the code, and its scale is 0
    assert same.all() and (absmax[:11].numpy() == scales[:11]).all()
    out.update({f"{name}.x": x, f"{name}.codes": torch.from_numpy(cuda), f"{name}.absmax": torch.from_numpy(scales)})
save_file({k: v.contiguous().clone() for k, v in out.items()}, "engine/quant/testdata/quant.safetensors")
