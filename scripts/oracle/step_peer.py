"""Training steps of PyTorch + PEFT against lorad's, in turns, so that both see the same machine.

    go build -o /tmp/lorad ./cmd/lorad
    python scripts/oracle/step_peer.py /tmp/lorad [--case MODEL/DTYPE/ADAPTER]... [--rounds 7] [--threads N] [--quick]
    python scripts/oracle/step_peer.py /tmp/lorad --start            # process start to first step done, embedded model

Cases are those of `lorad bench`; without --case all that the program knows. Each side is a process of its own that makes one step for each line it is
sent. The peer runs eager and, where torch.compile works, compiled (--eager leaves that out); the faster of the two by its median is what
counts. Prints medians, ranges, maximum resident sets, and ratios (ours to theirs). Needs Linux.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EMBEDDED = os.path.join(HERE, "..", "..", "embedded")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lorad", nargs="?")
    p.add_argument("--case", action="append")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--quick", action="store_true", help="a quarter of the tokens")
    p.add_argument("--eager", action="store_true", help="do not try torch.compile")
    p.add_argument("--start", action="store_true")
    p.add_argument("--serve", help=argparse.SUPPRESS)
    p.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    return p.parse_args()


# --- the peer's process -----------------------------------------------------------------------------------------------------------


def peak_rss_mb():
    """VmHWM, as lorad reads it: ru_maxrss would count the process that started this one."""
    with open("/proc/self/status") as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) * 1024 / 1e6


def build(model, dtype):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.bfloat16}[dtype]
    if model == "embedded":
        folder = os.path.join(EMBEDDED, "base")
        if dtype == "nf4":
            return quantised(folder)
        return AutoModelForCausalLM.from_pretrained(folder, torch_dtype=kind)
    cfg = LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=4, num_attention_heads=32, num_key_value_heads=4,
        max_position_embeddings=2048, rms_norm_eps=1e-5, torch_dtype=kind)
    torch.set_default_dtype(kind)
    m = LlamaForCausalLM(cfg)
    torch.set_default_dtype(torch.float32)
    if dtype != "nf4":
        return m
    with tempfile.TemporaryDirectory() as folder:
        m.save_pretrained(folder)
        del m
        return quantised(folder)


def quantised(folder):
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, torch_dtype=torch.bfloat16)


def trainee(model, dtype):
    """The model with its adapter, and a function that makes one step with a batch."""
    import torch
    from peft import LoraConfig, get_peft_model

    m = get_peft_model(build(model, dtype), LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS))
    m.train()
    m.config.use_cache = False
    trained = [p for p in m.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def step(net, ids):
        loss = net(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return float(loss)

    return m, step


def shape(model, quick):
    rows, length = (16, 64) if model == "embedded" else (4, 256)
    return rows // 4 if quick else rows, length


def serve(case, threads, compiled, quick):
    import torch

    torch.set_num_threads(threads)
    model, dtype, _ = case.split("/")
    net, step = trainee(model, dtype)
    if compiled:
        net = torch.compile(net)
    rows, length = shape(model, quick)
    vocab = net.config.vocab_size
    ids = (torch.arange(rows * length) * 7919 % vocab).reshape(rows, length)
    for _ in sys.stdin:
        began = time.perf_counter()
        step(net, ids)
        print(json.dumps({"ms": 1e3 * (time.perf_counter() - began), "tokens": rows * length, "peak_rss_mb": peak_rss_mb()}), flush=True)


# --- taking turns ---------------------------------------------------------------------------------------------------------------------


class Worker:
    """One side's process."""

    def __init__(self, name, command):
        self.name, self.samples = name, []
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)

    def step(self):
        """One step, or None if the process has ended."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def turn(self):
        time.sleep(0.2)  # the other side's threads spin for a moment after their last work
        self.samples.append(self.step())

    def rate(self):
        return [1e3 * s["tokens"] / s["ms"] for s in self.samples]

    def why(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip().splitlines()[-1:]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def workers(a, case):
    quick = ["--quick"] if a.quick else []
    ours = Worker("lorad", [a.lorad, "bench", "--steps", "--case", case, "--threads", str(a.threads)] + quick)
    peer = [sys.executable, os.path.abspath(__file__), "--serve", case, "--threads", str(a.threads)] + quick
    all = [ours, Worker("eager", peer)]
    if not a.eager:
        all.append(Worker("compiled", peer + ["--compiled"]))
    return all


def spread(x, unit=""):
    return f"{statistics.median(x):.0f}{unit} ({min(x):.0f}-{max(x):.0f})"


def compare(a, case, peak):
    alive = []
    for w in workers(a, case):
        if all(w.step() for _ in range(2)):  # the first takes memory, or compiles
            alive.append(w)
        else:
            print(f"  {w.name}: does not run: {' '.join(w.why())}")
            w.stop()
    for _ in range(a.rounds):
        for w in alive:
            w.turn()
    for w in alive:
        rss = w.samples[-1]["peak_rss_mb"]
        share = ""
        if "useful_gflop" in w.samples[0]:
            ms = statistics.median(s["ms"] for s in w.samples)
            top = peak["f32_gflops"] if "/f32/" in case else peak["bf16_gflops"]
            share = f", {100e3 * w.samples[0]['useful_gflop'] / ms / top:.0f} % of {top:.0f} GFLOP/s"
        print(f"  {w.name}: {spread(w.rate())} tokens/s, {rss:.0f} MB{share}")
    ours = [w for w in alive if w.name == "lorad"]
    peers = sorted((w for w in alive if w.name != "lorad"), key=lambda w: statistics.median(w.rate()))
    if ours and peers:
        best = peers[-1]
        ratios = [o / p for o, p in zip(ours[0].rate(), best.rate())]
        memory = ours[0].samples[-1]["peak_rss_mb"] / min(p.samples[-1]["peak_rss_mb"] for p in peers)
        print(f"  tokens/s: {statistics.median(ratios):.2f} times {best.name} ({min(ratios):.2f}-{max(ratios):.2f}, turn by turn); "
              f"peak memory: {memory:.2f} of the smaller peer's", flush=True)
    for w in alive:
        w.stop()


def measure_peak(a):
    command = [a.lorad, "bench", "-o", "json", "--quick", "--case", "embedded/f32/lora", "--threads", str(a.threads)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["peak"]


def known_cases(lorad):
    told = subprocess.run([lorad, "bench", "--case", "none"], capture_output=True, text=True).stderr
    return re.search(r"there are (.*)", told).group(1).split(", ")


# --- start ----------------------------------------------------------------------------------------------------------------------------

FIRST_STEP = """
import sys, json
sys.path.insert(0, {here!r})
import torch, transformers, peft
import step_peer
torch.set_num_threads({threads})
net, step = step_peer.trainee("embedded", "f32")
tok = transformers.AutoTokenizer.from_pretrained({base!r})
tok.pad_token = tok.pad_token or tok.eos_token
with open({data!r}) as f:
    records = [json.loads(line) for line in f]
texts = [r["prompt"] + r["completion"] for r in records]
sets = [tok(t)["input_ids"] for t in texts]
ids = tok(texts[:16], return_tensors="pt", padding=True)["input_ids"]
step(net, ids)
print("step", flush=True)
"""


def until(command, pattern, env=None):
    """Seconds from starting a process to its first line that matches."""
    began = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    took, said = None, []
    for line in p.stdout:
        said.append(line)
        if re.search(pattern, line):
            took = time.perf_counter() - began
            break
    p.kill()
    p.stdout.close()
    p.wait()
    if took is None:
        sys.exit("no step: " + "".join(said[-5:]))
    return took


def start(a):
    ours, theirs = [], []
    program = FIRST_STEP.format(here=HERE, threads=a.threads, base=os.path.join(EMBEDDED, "base"), data=os.path.join(EMBEDDED, "legal-train.jsonl"))
    for _ in range(a.rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(until([a.lorad, "train", lay(folder)], r"^step \d", dict(os.environ, LORAD_DIR=os.path.join(folder, "state"))))
        theirs.append(until([sys.executable, "-c", program], "^step"))
    ratios = [t / o for o, t in zip(ours, theirs)]
    print(f"process start to first step done: lorad {1e3 * statistics.median(ours):.0f} ms ({1e3 * min(ours):.0f}-{1e3 * max(ours):.0f}), peer "
          f"{1e3 * statistics.median(theirs):.0f} ms ({1e3 * min(theirs):.0f}-{1e3 * max(theirs):.0f}): {statistics.median(ratios):.1f} times sooner "
          f"({min(ratios):.1f}-{max(ratios):.1f})")


def lay(folder):
    """The demo's job, in a folder of its own; the output goes there too."""
    for name in ("base", "legal-train.jsonl", "legal-heldout.jsonl"):
        os.symlink(os.path.join(os.path.realpath(EMBEDDED), name), os.path.join(folder, name))
    with open(os.path.join(EMBEDDED, "job.yaml")) as f, open(os.path.join(folder, "job.yaml"), "w") as out:
        out.write(f.read())
    return os.path.join(folder, "job.yaml")


def main():
    a = arguments()
    if a.serve:
        return serve(a.serve, a.threads, a.compiled, a.quick)
    if not a.lorad:
        sys.exit("give the path of a lorad program")
    import peft
    import torch
    import transformers

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}; {a.threads} threads; "
          f"load {os.getloadavg()[0]:.1f}", flush=True)
    if a.start:
        return start(a)
    peak = measure_peak(a)
    print(f"peak f32 {peak['f32_gflops']:.0f}, bf16 {peak['bf16_gflops']:.0f} GFLOP/s, memory {peak['bandwidth_gbs']:.1f} GB/s", flush=True)
    for case in a.case or known_cases(a.lorad):
        print(case, flush=True)
        compare(a, case, peak)
    after = measure_peak(a)
    print(f"peak at the end: f32 {after['f32_gflops']:.0f}, bf16 {after['bf16_gflops']:.0f} GFLOP/s, memory {after['bandwidth_gbs']:.1f} GB/s")


if __name__ == "__main__":
    main()
