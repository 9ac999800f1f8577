"""Train the runs of node/recipe/curve_test.go with transformers, PEFT and bitsandbytes, and hold lorad's losses against theirs.

    go test ./node/recipe -run Curves -curves-dump DIR     lorad's runs: bases, initial adapters, batches, losses; DIR is an absolute path
    python scripts/oracle/curves.py DIR [NAME ...]                 the same runs here; prints the differences, records node/recipe/testdata/curves
    python scripts/oracle/curves.py --noise DIR [NAME ...]         these libraries against themselves, with micro-batches of one example: records nothing
    go test ./node/recipe -run Curves                      compares, without Python

NAME-lora trains in f32, lorabf16 with the base in bf16. NAME-qlora quantises the base to NF4 with double quantisation, prepared by PEFT's
prepare_model_for_kbit_training, computed in f32 (bnb_4bit_compute_dtype), qlorabf16 in bf16; qlora8bit is qlora with bitsandbytes' AdamW8bit.
Adapters are f32. All on the CPU, in one thread.
"""
import json
import pathlib
import sys

import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu
import torch
import transformers
from bnb_reference import default_kernels
from llama_qlora import patch, plain_layout, quantised
from peft import PeftModel, prepare_model_for_kbit_training
from safetensors.torch import load_file

OUT = pathlib.Path("node/recipe/testdata/curves")


def load(folder, kind):
    dtype = torch.bfloat16 if kind.endswith("bf16") else torch.float32
    if kind.startswith("lora"):
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype, attn_implementation="eager")
    else:
        base = plain_layout(quantised(folder / "base", True, dtype, attn_implementation="eager"))
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).train()
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    loaded = {k.replace(".default", ""): p for k, p in model.named_parameters() if p.requires_grad}
    assert set(stored) == set(loaded) and all(torch.equal(stored[k], loaded[k]) for k in stored)
    return model


def optimizer_of(params, job, kind):
    words = dict(lr=job["learning_rate"], betas=(job["beta1"], job["beta2"]), eps=job["eps"], weight_decay=job["weight_decay"])
    return (bnb.optim.AdamW8bit if kind == "qlora8bit" else torch.optim.AdamW)(params, **words)


def batch_of(examples):
    width = max(len(e["tokens"]) for e in examples)
    ids, mask = torch.zeros(len(examples), width, dtype=torch.long), torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full((len(examples), width), -100)
    for row, e in enumerate(examples):
        n = len(e["tokens"])
        ids[row, :n], mask[row, :n] = torch.tensor(e["tokens"]), 1
        labels[row, 1:n] = torch.tensor(e["labels"][:-1])  # lorad's labels[i] is the token to predict at i
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def train(folder, kind, run):
    model = load(folder, kind)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_of(params, run["job"], kind)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, int(run["job"]["warmup_steps"]), len(run["steps"]))
    losses = []
    for micros in run["steps"]:
        labelled = torch.tensor(sum(l != -100 for m in micros for e in m for l in e["labels"]))
        total = 0.0
        for micro in micros:
            loss = model(**batch_of(micro), num_items_in_batch=labelled).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(params, run["job"]["max_grad_norm"])
        losses.append(total)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return losses


def apart(ours, theirs):
    first = max(abs(a - b) for a, b in zip(ours[:10], theirs[:10]))
    means = [sum(ours[i : i + 20]) / sum(theirs[i : i + 20]) - 1 for i in range(0, len(theirs), 20)]
    return f"first 10 steps within {first:.2g}, 20-step means within {max(map(abs, means)):.2g}"


def split(run):
    """The same global batches, one example at a time: equal but for rounding."""
    return dict(run, steps=[[[e] for micro in micros for e in micro] for micros in run["steps"]])


def main():
    noise = sys.argv[1] == "--noise"
    names = sys.argv[2 + noise :]
    root = pathlib.Path(sys.argv[1 + noise])
    torch.set_num_threads(1)
    patch()
    kernels = default_kernels()

    def quantise(x, code, absmax, out, size):
        q, a = kernels["quantize_blockwise"](x, code, size)
        out.copy_(q.reshape(out.shape))
        absmax.copy_(a)

    cpu._quant_blockwise_fp32_direct = quantise
    OUT.mkdir(parents=True, exist_ok=True)
    for folder in sorted(root / name for name in names) or sorted(root.iterdir()):
        run, kind = json.loads((folder / "run.json").read_text()), folder.name.split("-")[1]
        losses = train(folder, kind, run)
        if noise:
            print(f"{folder.name}, against itself: {apart(train(folder, kind, split(run)), losses)}", flush=True)
            continue
        print(f"{folder.name}: {apart(run['loss'], losses)}, loss {losses[0]:.3f} to {sum(losses[-20:]) / 20:.3f}", flush=True)
        facts = dict(base_sha256=run["base_sha256"], batches_sha256=run["batches_sha256"], loss=losses)
        (OUT / f"{folder.name}.json").write_text(json.dumps(facts) + "\n")


main()
