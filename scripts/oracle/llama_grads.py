"""Record what transformers and PEFT compute for tiny random Llamas: logits, loss, and gradients in float32.

Needs a venv with torch, transformers, peft and safetensors. Writes engine/llama/testdata/NAME.{json,safetensors}:
weights/*, adapter/*, logits (base), adapter_logits, full_grad/* (base, all weights trained) and adapter_grad/*.
The .json also has the loss per labelled token of each of ten steps of torch's AdamW on the adapter.
Labels are already shifted (labels[i] is the token to predict at position i; -100 carries no loss); losses are sums in nats.

    python scripts/oracle/llama_grads.py engine/llama/testdata
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = dict(vocab_size=97, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
VARIANTS = {
    "tied": (dict(tie_word_embeddings=True), dict(target_modules="all-linear", r=4, lora_alpha=6)),
    "llama3": (dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
               dict(target_modules=["q_proj", "v_proj", "down_proj"], r=3, lora_alpha=4, use_rslora=True)),
}
LENGTHS = [70, 9]


def randomise(model, std):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * std + (1.0 if "norm" in name and p.dim() == 1 else 0.0))


def batch():
    tokens = [torch.randint(SHAPE["vocab_size"], (n,)) for n in LENGTHS]
    labels = [torch.randint(SHAPE["vocab_size"], (n,)) for n in LENGTHS]
    for l in labels:
        l[torch.rand(l.shape) < 0.3] = -100
    return tokens, labels


def loss_of(model, tokens, labels):
    total = 0.0
    for t, l in zip(tokens, labels):
        logits = model(input_ids=t[None]).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits.float(), l, ignore_index=-100, reduction="sum")
    return total


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens[0][None]).logits[0].contiguous()


def train(model, tokens, labels):
    """Ten steps at a constant learning rate; the loss of each, before its update."""
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    labelled = sum((l != -100).sum().item() for l in labels)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model, tokens, labels) / labelled
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def record(name, extra, adapter, out):
    torch.manual_seed(sum(map(ord, name)))
    cfg = LlamaConfig(**SHAPE, **extra)
    model = LlamaForCausalLM(cfg).float().eval()
    randomise(model, 0.15)
    tokens, labels = batch()
    tensors = {f"weights/{k}": v.detach().clone() for k, v in model.named_parameters()}
    tensors["logits"] = logits_of(model, tokens)
    loss = loss_of(model, tokens, labels)
    loss.backward()
    tensors |= {f"full_grad/{k}": p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()

    lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **adapter)).eval()
    with torch.no_grad():
        for key, p in lora.named_parameters():
            if "lora_" in key:
                p.copy_(torch.randn_like(p) * 0.2)
    tensors |= {f"adapter/{k}": v.clone() for k, v in get_peft_model_state_dict(lora).items()}
    tensors["adapter_logits"] = logits_of(lora, tokens)
    adapter_loss = loss_of(lora, tokens, labels)
    adapter_loss.backward()
    grads = {k.replace(".default", ""): p.grad for k, p in lora.named_parameters() if p.requires_grad}
    tensors |= {f"adapter_grad/{k}": v.clone() for k, v in grads.items()}

    save_file(tensors, out / f"{name}.safetensors")
    facts = dict(tokens=[t.tolist() for t in tokens], labels=[l.tolist() for l in labels], loss=loss.item(),
                 adapter_loss=adapter_loss.item(), curve=train(lora, tokens, labels))
    (out / f"{name}.json").write_text(json.dumps(facts) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for name, (extra, adapter) in VARIANTS.items():
        record(name, extra, adapter, out)


main()
