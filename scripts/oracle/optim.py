"""Records what torch and transformers compute for engine/optim: AdamW, clipping and schedules.

    python scripts/oracle/optim.py > engine/optim/testdata/optim.json
"""
import json
import sys

import torch
import transformers

torch.manual_seed(7)


def f32(t):
    return [float(x) for x in t]


def adamw(decay, n=37, steps=20, lr=3e-3):
    p = torch.randn(n).requires_grad_()
    start = f32(p.detach())
    opt = torch.optim.AdamW([p], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay, foreach=False, fused=False)
    grads, params = [], []
    for step in range(steps):
        g = torch.randn(n) * 10.0 ** float(torch.randint(-4, 2, (1,)))
        g[step % n] = 0.0
        p.grad = g.clone()
        opt.step()
        grads.append(f32(g))
        params.append(f32(p.detach()))
    state = opt.state[p]
    return dict(lr=lr, decay=decay, start=start, grads=grads, params=params,
                m=f32(state["exp_avg"]), v=f32(state["exp_avg_sq"]))


def clip(scale, limit):
    g = torch.randn(53) * scale
    p = torch.zeros(53, requires_grad=True)
    p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_([p], limit)
    return dict(grad=f32(g), max=limit, norm=float(norm), clipped=f32(p.grad))


def schedule(kind, warmup, total, peak=2e-4, ratio=0.0):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    make = {
        "cosine": lambda: transformers.get_cosine_schedule_with_warmup(opt, warmup, total),
        "linear": lambda: transformers.get_linear_schedule_with_warmup(opt, warmup, total),
        "constant": lambda: transformers.get_constant_schedule_with_warmup(opt, warmup),
    }[kind]
    if ratio:
        make = lambda: transformers.get_cosine_with_min_lr_schedule_with_warmup(opt, warmup, total, min_lr_rate=ratio)
    s, rates = make(), []
    for _ in range(total + 3):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return dict(kind=kind, warmup=warmup, total=total, peak=peak, ratio=ratio, rates=rates)


json.dump(dict(
    versions=dict(torch=torch.__version__, transformers=transformers.__version__),
    adamw=[adamw(0.0), adamw(0.1)],
    clip=[clip(5.0, 1.0), clip(1e-3, 1.0)],
    schedules=[schedule("cosine", 5, 60), schedule("cosine", 0, 41), schedule("linear", 7, 60), schedule("linear", 0, 13),
               schedule("constant", 4, 20), schedule("cosine", 3, 40, ratio=0.1)],
), sys.stdout, separators=(",", ":"))
