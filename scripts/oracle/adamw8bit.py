"""Records steps of bitsandbytes' 8-bit AdamW: engine/optim/testdata/adamw8bit.safetensors.

    python scripts/oracle/adamw8bit.py

Two recordings of the same gradients. `cuda.*` is its CUDA kernel written again in NumPy (bnb_reference.py), which lorad must equal to the
bit. `bnb.*` is the library's own AdamW8bit as it runs on a CPU, with the 8-bit codes of its torch backend (its CPU library's are coarse near
zero): the same algorithm rounded differently. The script prints how far the two are apart. Cases: without and with weight decay, where the
two differ in order (the kernel decays after the update); a tensor below 4096 elements, which keeps moments in f32.
"""
import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu
import bitsandbytes.functional as F
import numpy as np
import torch
from bnb_reference import adamw8bit, default_kernels
from safetensors.torch import save_file

torch.manual_seed(5)
STEPS, N, LR, BETAS, EPS = 12, 4096 + 256 + 77, 1e-3, (0.9, 0.999), 1e-8
kernels = default_kernels()


def quantise(x, code, absmax, out, size):
    q, a = kernels["quantize_blockwise"](x, code, size)
    out.copy_(q.reshape(out.shape))
    absmax.copy_(a)


cpu._quant_blockwise_fp32_direct = quantise
code1, code2 = F.create_dynamic_map(True).numpy(), F.create_dynamic_map(False).numpy()
start = torch.randn(N)
grads = torch.randn(STEPS, N) * 10 ** torch.empty(N).uniform_(-1, 0)
grads[:, 300:310] = 0
grads[:6, 256 * 3 : 256 * 4] = 0  # a block that is zero at first
rough = torch.randn(STEPS, N) * 10 ** torch.empty(STEPS, N).uniform_(-4, 1)
rough[:, 4000] = -1e-7  # below the smallest code of its block
rough[3, 17] = float("inf")
out = {"start": start, "grads": grads.half(), "rough": rough.half()}


def by_cuda(decay, grads):
    p, z = start.numpy().copy(), lambda n, t: np.zeros(n, dtype=t)
    blocks = -(-N // 256)
    state = dict(c1=z(N, np.uint8), c2=z(N, np.uint8), a1=z(blocks, np.float32), a2=z(blocks, np.float32))
    for t, g in enumerate(out[grads].float().numpy(), 1):
        adamw8bit(p, g, state, code1, code2, LR, BETAS, EPS, decay, t)
    return p, state


def by_library(p, decay):
    p = torch.nn.Parameter(p.clone())
    optimizer = bnb.optim.AdamW8bit([p], lr=LR, betas=BETAS, eps=EPS, weight_decay=decay)
    for g in out["grads"].float():
        p.grad = g[: len(p)].clone()
        optimizer.step()
    return p.data, optimizer.state[p]


for name, decay, gradients in (("plain", 0.0, "grads"), ("decay", 0.1, "grads"), ("rough", 0.0, "rough")):
    p, s = by_cuda(decay, gradients)
    out.update({f"cuda.{name}.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in dict(s, p=p).items()})
    if gradients == "rough":
        continue
    q, t = by_library(start, decay)
    moved = (torch.from_numpy(p) - start).abs().max().item()
    codes = [(torch.from_numpy(s[c]).int() - t[k].int()).abs() for c, k in (("c1", "state1"), ("c2", "state2"))]
    codes = [torch.where(torch.from_numpy(s["a1"]).repeat_interleave(256)[:N] > 0, c, 0) for c in codes]
    print(name, "moved", moved, "apart", (torch.from_numpy(p) - q).abs().max().item(),
          "codes that differ", [(c > 0).sum().item() for c in codes], "by", [c.max().item() for c in codes])
    out.update({f"bnb.{name}.p": q, f"bnb.{name}.a1": t["absmax1"], f"bnb.{name}.a2": t["absmax2"]})
p, s = by_library(start[:1000], 0.1)
out.update({"bnb.small.p": p, "bnb.small.m": s["state1"], "bnb.small.v": s["state2"]})
save_file({k: v.contiguous().clone() for k, v in out.items()}, "engine/optim/testdata/adamw8bit.safetensors")
