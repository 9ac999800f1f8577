"""Train the run of node/recipe/testdata/peft/job.yaml with transformers, PEFT and torch, and hold lorad's run against it.

    python scripts/oracle/peft_training.py init           PEFT makes the initial adapter: node/recipe/testdata/peft/adapter
    go test ./node/recipe -peft-dump DIR                  lorad trains it and writes what it did; DIR is an absolute path
    python scripts/oracle/peft_training.py record DIR     PEFT trains it too: curve.json, logits.safetensors, next to adapter
    go test ./node/recipe                                 compares, without Python

`record` trains on the batches of DIR from the same adapter, loads the adapter that lorad wrote with PEFT, and prints the worst
differences as JSON: of the losses per step, of all logits of a few prompts. It fails, and writes nothing, when one is beyond its limit.
It also trains in float64, which shows what either side's float32 costs. All on the CPU, in one thread.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

BASE = pathlib.Path("embedded/base")
OUT = pathlib.Path("node/recipe/testdata/peft")
LIMITS = {"loss": 1e-4, "base_logits": 1e-4, "adapted_logits": 1e-4}
SAMPLED = 256  # of position p, logits p % SAMPLED, p % SAMPLED + SAMPLED, ... are recorded


def load_base():
    """The embedded base is stored as bf16 and computed with as f32."""
    with safe_open(BASE / "model.safetensors", "pt") as f:
        stored = {f.get_slice(k).get_dtype() for k in f.keys()}
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    used = {p.dtype for p in model.parameters()}
    if stored != {"BF16"} or used != {torch.float32}:
        sys.exit(f"the base is stored as {stored} and loaded as {used}; want BF16 and float32")
    return model


def load_adapted(folder, trainable=False):
    model = peft.PeftModel.from_pretrained(load_base(), folder, is_trainable=trainable)
    stored = load_file(pathlib.Path(folder) / "adapter_model.safetensors")
    loaded = peft.get_peft_model_state_dict(model)
    if set(stored) != set(loaded) or any(not torch.equal(stored[k].float(), loaded[k]) for k in stored):
        sys.exit(f"PEFT did not take all of {folder} as it is stored")
    return model


def init():
    """A new adapter, as PEFT initialises it. Its values are cut to bf16, which halves the file; training is in f32."""
    torch.manual_seed(42)
    base = load_base()
    base.name_or_path = "embedded/base"
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).to(torch.bfloat16)
    model.peft_config["default"].target_modules = sorted(model.peft_config["default"].target_modules)
    model.save_pretrained(OUT / "adapter")
    (OUT / "adapter" / "README.md").unlink(missing_ok=True)


def padded(examples):
    """A micro-batch as transformers wants it: padded on the right, labels not shifted."""
    width = max(len(e["tokens"]) for e in examples)
    ids, labels = torch.zeros(len(examples), width, dtype=torch.long), torch.full((len(examples), width), -100)
    mask = torch.zeros(len(examples), width, dtype=torch.long)
    for row, e in enumerate(examples):
        n = len(e["tokens"])
        assert e["labels"][-1] == -100  # lorad's labels[i] is the token to predict at i: nothing follows the last
        ids[row, :n], mask[row, :n] = torch.tensor(e["tokens"]), 1
        labels[row, 1:n] = torch.tensor(e["labels"][:-1])
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def train(run, dtype):
    """The loop of transformers' Trainer: the loss is a sum over the step's micro-batches, divided by the step's labels."""
    model, job = load_adapted(OUT / "adapter", trainable=True).to(dtype).train(), run["job"]
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=job["learning_rate"], betas=(job["beta1"], job["beta2"]), eps=job["eps"],
                                  weight_decay=job["weight_decay"])
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, int(job["warmup_steps"]), len(run["steps"]))
    curve = dict(loss=[], learning_rate=[], grad_norm=[])
    for micros in run["steps"]:
        labelled = torch.tensor(sum(l != -100 for m in micros for e in m for l in e["labels"]))
        total = 0.0
        for micro in micros:
            loss = model(**padded(micro), num_items_in_batch=labelled).loss
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(params, job["max_grad_norm"]).item()
        curve["loss"].append(total)
        curve["grad_norm"].append(norm)
        curve["learning_rate"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return curve, model


def worst(ours, theirs):
    return max(abs(a - b) / abs(b) if a != b else 0.0 for a, b in zip(ours, theirs, strict=True))


def logits_of(model, prompts):
    with torch.no_grad():
        return [model.eval()(torch.tensor([p])).logits[0] for p in prompts]


def worst_logit(ours, theirs):
    """Relative to the largest |logit| of the position."""
    return max(((a - b).abs().amax(1) / b.abs().amax(1)).max().item() for a, b in zip(ours, theirs, strict=True))


def sample(name, logits):
    out = {}
    for i, l in enumerate(logits):
        rows = [row[p % SAMPLED :: SAMPLED] for p, row in enumerate(l)]
        out |= {f"{name}.{i}": torch.stack(rows), f"{name}.{i}.largest": l.abs().amax(1)}
    return out


def record(folder):
    run = json.loads((folder / "run.json").read_text())
    if hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest() != run["base_sha256"]:
        sys.exit(f"{folder} was written with another base than {BASE}")
    curve, trained = train(run, torch.float32)
    exact, _ = train(run, torch.float64)
    ours = load_file(folder / "logits.safetensors")
    mine = {m: [ours[f"{m}.{i}"] for i in range(len(run["prompts"]))] for m in ("base", "adapted")}
    base, adapted = logits_of(load_base(), run["prompts"]), logits_of(load_adapted(folder / "adapter"), run["prompts"])
    found = {
        "loss": worst(run["loss"], curve["loss"]),
        "grad_norm": worst(run["grad_norm"], curve["grad_norm"]),
        "learning_rate": worst(run["learning_rate"], curve["learning_rate"]),
        "base_logits": worst_logit(mine["base"], base),
        "adapted_logits": worst_logit(mine["adapted"], adapted),
        "logits_of_both_trainings": worst_logit(adapted, logits_of(trained, run["prompts"])),
        "loss_against_float64": {"lorad": worst(run["loss"], exact["loss"]), "peft": worst(curve["loss"], exact["loss"])},
        "loss_first_last": [curve["loss"][0], curve["loss"][-1]],
    }
    print(json.dumps(found, indent=1))
    if any(not found[k] <= limit for k, limit in LIMITS.items()):
        sys.exit(f"beyond the limits {LIMITS}: nothing recorded")
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    facts = dict(versions=versions, base_sha256=run["base_sha256"], batches_sha256=run["batches_sha256"], **curve)
    (OUT / "curve.json").write_text(json.dumps(facts, indent=1) + "\n")
    save_file(sample("base", base) | sample("adapted", adapted), OUT / "logits.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["init", "record"])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if args.command == "init":
        init()
    else:
        record(args.folder)


main()
