"""Training steps of transformers + PEFT on a GPU against lorad's, in turns. scripts/gpu-check.sh calls it; it may be called alone:

    python scripts/oracle/gpu_peer.py LORAD [--case bf16/4x512]... [--steps 20] [--tiny] [-o OUT.json]

The same shape of model (TinyLlama 1.1B, random weights), LoRA r = 16 on all linear layers, no dropout, AdamW, clipping, sequences that are full. lorad's
step is that of a node: gradient, exact sum, clipping and AdamW on the host. Variants of the peer, the best of which counts: eager under bf16 autocast with
SDPA ("eager"), without PEFT's cast of inputs ("nocast"), compiled ("compiled", its compilation not timed). nf4 cases need bitsandbytes.
Each side is a process of its own. Order: ABBA, twice; a case whose two rounds differ by more than 3 % is marked. Prints a table; needs CUDA for the peer.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = ["bf16/16x512", "bf16/4x512", "nf4/16x512", "bf16/4x2048", "nf4/4x512"]  # the most telling first
VARIANTS = ["eager", "nocast", "compiled"]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lorad", nargs="?")
    p.add_argument("--case", action="append")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--budget", type=int, default=300, help="seconds; cases for which there is no time any more are left out")
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("-o", "--out")
    p.add_argument("--serve", help=argparse.SUPPRESS)
    p.add_argument("--variant", help=argparse.SUPPRESS)
    return p.parse_args()


def shape(tiny):
    if tiny:
        return dict(vocab_size=512, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    return dict(vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4)


def build(dtype, tiny):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    cfg = LlamaConfig(max_position_embeddings=2048, rms_norm_eps=1e-5, attn_implementation="sdpa", **shape(tiny))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        torch.manual_seed(1)
        m = LlamaForCausalLM(cfg)
    torch.set_default_dtype(torch.float32)
    if dtype == "bf16":
        return m, device
    import tempfile
    from transformers import BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        m.save_pretrained(folder)
        del m
        return AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, torch_dtype=torch.bfloat16, device_map=device), device


def serve(case, variant, tiny):
    """One step for each line of standard input; before, five (compiled: ten) that are not timed."""
    import torch
    from peft import LoraConfig, get_peft_model

    dtype, size = case.split("/")[:2]
    rows, length = map(int, size.split("x"))
    m, device = build(dtype, tiny)
    m = get_peft_model(m, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS))
    if variant != "eager":
        for module in m.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False
                for p in list(module.lora_A.parameters()) + list(module.lora_B.parameters()):
                    p.data = p.data.to(torch.bfloat16)
    m.train()
    m.config.use_cache = False
    trained = [p for p in m.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=device == "cuda")
    net = torch.compile(m, dynamic=False) if variant == "compiled" else m
    ids = (torch.arange(rows * length) * 7919 % m.config.vocab_size).reshape(rows, length).to(device)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = net(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return float(loss.detach())

    for _ in range(10 if variant == "compiled" else 5):
        step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        ms = 1e3 * (time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        print(json.dumps({"ms": ms, "memory": {"peak": peak}}), flush=True)


class Worker:
    def __init__(self, name, command, warm):
        self.name, self.rounds, self.memory, self.left = name, [], 0, warm
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.alive = True

    def warm(self):
        self.alive = all(self.ask() for _ in range(self.left))

    def ask(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def turn(self, steps):
        samples = [s for s in (self.ask() for _ in range(steps)) if s]
        if not samples:
            self.alive = False
            return
        self.rounds.append([s["ms"] for s in samples])
        self.memory = samples[-1]["memory"]["peak"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def result(self, tokens):
        if not self.alive:
            return None
        every = [x for r in self.rounds for x in r]
        medians = [statistics.median(r) for r in self.rounds]
        q = statistics.quantiles(every, n=10, method="inclusive") if len(every) > 1 else [every[0]] * 9
        ms = statistics.median(every)
        return {"ms": ms, "p10": q[0], "p90": q[-1], "tokens_per_s": 1e3 * tokens / ms, "peak_gb": self.memory / 1e9, "steady": max(medians) <= 1.03 * min(medians)}


def measure(a, case):
    dtype, size = case.split("/")[:2]
    rows, length = map(int, size.split("x"))
    tiny = ["--tiny"] if a.tiny else []
    workers = [Worker("lorad", [a.lorad, "bench", "--gpu", case, "--steps"] + tiny, 5)]
    for v in VARIANTS:
        if v != "compiled" or not a.no_compile:
            workers.append(Worker(v, [sys.executable, __file__, "--serve", case, "--variant", v] + tiny, 1))
    for w in workers:  # they have all been starting meanwhile; from here on only one works at a time
        w.warm()
    turns = (workers + workers[::-1]) * 2
    for w in turns:
        if w.alive:
            w.turn(max(1, a.steps // 4))
    for w in workers:
        w.stop()
    return {w.name: w.result(rows * length) for w in workers}


def main():
    a = arguments()
    if a.serve:
        return serve(a.serve, a.variant, a.tiny)
    results, began = {}, time.monotonic()
    print(f"{'case':14} {'who':10} {'ms':>9} {'p10':>9} {'p90':>9} {'tokens/s':>10} {'peak GB':>8}")
    for case in a.case or CASES:
        if time.monotonic() - began > 0.7 * a.budget:
            print(f"{case:14} left out: no time", flush=True)
            continue
        results[case] = measure(a, case)
        table(case, results[case])
    if a.out:
        with open(a.out, "w") as f:
            json.dump(results, f, indent=1)
    return 0 if all(sides["lorad"] for sides in results.values()) else 1


def table(case, sides):
    for name, r in sides.items():
        if r is None:
            print(f"{case:14} {name:10} does not run here")
            continue
        mark = "" if r["steady"] else "   rounds differ by more than 3 %"
        print(f"{case:14} {name:10} {r['ms']:9.2f} {r['p10']:9.2f} {r['p90']:9.2f} {r['tokens_per_s']:10.0f} {r['peak_gb']:8.2f}{mark}")
    peers = [r["tokens_per_s"] for n, r in sides.items() if n != "lorad" and r]
    if sides["lorad"] and peers:
        print(f"{case:14} ratio to the best of the peer: {sides['lorad']['tokens_per_s'] / max(peers):.2f}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
