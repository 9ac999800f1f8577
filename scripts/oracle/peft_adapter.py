"""Record what PEFT writes for a LoRA of a tiny Llama, in each of the ways to name target modules.

    python scripts/oracle/peft_adapter.py model/peft/testdata

Writes one adapter folder per case (the weights of the first only), and matches.json: the tensors each target_modules gives.
"""
import json
import os
import shutil
import sys
import tempfile

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

OUT = sys.argv[1]
CASES = {
    "list": ["q_proj", "v_proj"],
    "all-linear": "all-linear",
    "regex": r"(?!.*layers\.0).*\.(gate|up)_proj",
    "partial": ["layers.1.mlp.down_proj", "proj", "model.layers.0.self_attn.o_proj"],
    "head": ["lm_head", "k_proj"],
}


def main():
    torch.manual_seed(7)
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=32)
    matches = {}
    for name, target in CASES.items():
        base = LlamaForCausalLM(config)
        base.name_or_path = "some/base" if name == "list" else ""
        lora = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05 if name == "list" else 0.0, target_modules=target, task_type="CAUSAL_LM",
                               use_rslora=name == "regex")
        model = peft.get_peft_model(base, lora)
        for p in model.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p)
        with tempfile.TemporaryDirectory() as tmp:
            model.save_pretrained(tmp)
            dst = os.path.join(OUT, name)
            os.makedirs(dst, exist_ok=True)
            for f in ("adapter_config.json", "adapter_model.safetensors"):
                if f.endswith(".json") or name == "list":
                    shutil.copyfile(os.path.join(tmp, f), os.path.join(dst, f))
            keys = peft.get_peft_model_state_dict(model)
            matches[name] = {"target_modules": target, "keys": {k: list(v.shape) for k, v in sorted(keys.items())}}
    linear = sorted(n for n, m in LlamaForCausalLM(config).named_modules() if isinstance(m, torch.nn.Linear))
    with open(os.path.join(OUT, "matches.json"), "w") as f:
        json.dump({"linear": linear, "cases": matches}, f, indent=1, sort_keys=True)


main()
