"""Times torch's float32 product against engine/cpu, shape by shape, in turns, so that both see the same machine.

    go test -c -o /tmp/cpu.test ./engine/cpu && python scripts/oracle/gemm_peer.py /tmp/cpu.test [threads]

Prints GFLOP/s, the best of several rounds each.
"""
import re
import subprocess
import sys
import time

import torch

binary, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
torch.set_num_threads(threads)
torch.set_grad_enabled(False)

# Kind, m, n, k as in bench_test.go: forward X W^T, gradient by the input dY W, gradient by the weight dY^T X.
SHAPES = [
    ("forward", 1000, 128, 128), ("forward", 1000, 384, 128), ("forward", 1000, 128, 384), ("forward", 1000, 2048, 128),
    ("forward", 200, 384, 128), ("forward", 1000, 16, 128), ("forward", 1000, 128, 16), ("input", 1000, 128, 384),
    ("input", 1000, 128, 2048), ("weight", 128, 128, 1000), ("weight", 384, 128, 1000), ("weight", 2048, 128, 1000),
    ("weight", 16, 128, 1000), ("weight", 128, 16, 1000), ("forward", 256, 2048, 2048), ("input", 256, 2048, 2048),
    ("weight", 2048, 2048, 256), ("forward", 1024, 16, 2048), ("forward", 1024, 2048, 16),
]


def ours(kind, m, n, k):
    out = subprocess.run([binary, "-test.run", "^$", "-test.benchtime", "50ms",
                          "-test.bench", f"Gemm/.*/{threads}/{kind}/{m}x{n}x{k}$"], capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) GFLOP/s", out).group(1))


def peer(kind, m, n, k):
    a = torch.randn(k, m).t() if kind == "weight" else torch.randn(m, k)
    b = torch.randn(n, k).t() if kind == "forward" else torch.randn(k, n)
    c = torch.empty(m, n)
    best, end = 1e9, time.perf_counter() + 0.05
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        best = min(best, time.perf_counter() - start)
    return 2 * m * n * k / best / 1e9


print(f"torch {torch.__version__}, {threads} thread(s); GFLOP/s")
for s in SHAPES:
    best = [0.0, 0.0]
    for _ in range(3):
        best = [max(best[0], ours(*s)), max(best[1], peer(*s))]
    print(f"{s[0]:8} {s[1]}x{s[2]}x{s[3]:<5} ours {best[0]:6.1f}  torch {best[1]:6.1f}  ratio {best[0] / best[1]:.2f}", flush=True)
