"""Record PEFT's relatives of LoRA on the tiny random Llama of llama_grads.py that has biases: engine/llama/testdata/family.

    python scripts/oracle/peft_family.py engine/llama/testdata

Per case an adapter folder NAME/ as PEFT saves it, with random values, and in recorded.safetensors: NAME/logits of the first sequence, the
gradients of the summed loss, by PEFT's names, as NAME/grad/*. recorded.json has tokens, labels and the losses in nats, and for loraplus the
losses of ten steps with PEFT's create_loraplus_optimizer.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from llama_grads import SHAPE, VARIANTS, batch, logits_of, loss_of
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {
    "patterns": dict(r=4, lora_alpha=6, target_modules="all-linear", rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6, "^model.layers.0.self_attn.v_proj": 1},
                     alpha_pattern={"k_proj": 16, "down_proj": 3}, exclude_modules=["o_proj"]),
    "rslora": dict(r=4, lora_alpha=6, target_modules=r".*\.[01]\.mlp\.(gate|up)_proj", use_rslora=True, rank_pattern={"up_proj": 9},
                   exclude_modules=r".*layers\.1.*up_proj"),
    "dora": dict(r=3, lora_alpha=6, target_modules="all-linear", use_dora=True, rank_pattern={"v_proj": 2}),
    "bias": dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], bias="lora_only"),
    "saved": dict(r=2, lora_alpha=4, target_modules=["v_proj", "gate_proj"], modules_to_save=["embed_tokens", "lm_head", "model.norm", "layers.0.mlp.up_proj"]),
    "loraplus": dict(r=4, lora_alpha=8, target_modules="all-linear"),
}


def base(out):
    _, shape, _ = VARIANTS["llama3"]
    model = LlamaForCausalLM(LlamaConfig(**shape)).float().eval()
    stored = load_file(out / "llama3.safetensors")
    model.load_state_dict({k.removeprefix("weights/"): v for k, v in stored.items() if k.startswith("weights/")})
    model.name_or_path = ""
    return model


def curve(model, tokens, labels):
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=2e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.01)
    labelled = sum((l != -100).sum().item() for l in labels)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model, tokens, labels) / labelled
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    out = pathlib.Path(sys.argv[1])
    dst = out / "family"
    shutil.rmtree(dst, ignore_errors=True)
    torch.set_num_threads(1)
    torch.manual_seed(77)
    tokens, labels = batch(SHAPE["vocab_size"])
    tensors, facts = {}, dict(tokens=[t.tolist() for t in tokens], labels=[l.tolist() for l in labels], losses={})
    for name, config in CASES.items():
        model = get_peft_model(base(out), LoraConfig(task_type="CAUSAL_LM", **config)).eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                if p.requires_grad:
                    p.copy_(p * (1 + torch.randn_like(p) * 0.1) if "magnitude" in key else p + torch.randn_like(p) * 0.15)
        model.peft_config["default"].target_modules = sorted(t) if isinstance(t := model.peft_config["default"].target_modules, set) else t
        if config.get("modules_to_save"):
            model.peft_config["default"].modules_to_save = config["modules_to_save"]
        with tempfile.TemporaryDirectory() as tmp:
            model.save_pretrained(tmp)
            (dst / name).mkdir(parents=True)
            for f in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(f"{tmp}/{f}", dst / name / f)
        print(name, sorted(k for k in load_file(dst / name / "adapter_model.safetensors") if ".0." in k or "layers" not in k))
        tensors[f"{name}/logits"] = logits_of(model, tokens)
        loss = loss_of(model, tokens, labels)
        loss.backward()
        facts["losses"][name] = loss.item()
        for key, p in model.named_parameters():
            if p.requires_grad:
                tensors[f"{name}/grad/{key}"] = p.grad.clone()
        if name == "loraplus":
            facts["curve"] = curve(model, tokens, labels)
    save_file(tensors, dst / "recorded.safetensors")
    (dst / "recorded.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
