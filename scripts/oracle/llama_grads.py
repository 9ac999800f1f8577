"""Record what transformers and PEFT compute for tiny random models of every family: logits, loss, and gradients in float32.

Needs a venv with torch, transformers, peft and safetensors. Writes engine/llama/testdata/NAME.{json,safetensors}:
weights/*, adapter/*, logits (base), adapter_logits, full_grad/* (base, all weights trained) and adapter_grad/*.
The .json also has config.json, adapter_config.json and the loss per labelled token of each of ten steps of torch's AdamW on the adapter.
Labels are already shifted (labels[i] is the token to predict at position i; -100 carries no loss); losses are sums in nats.

    python scripts/oracle/llama_grads.py engine/llama/testdata [NAME ...]
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
import transformers

SHAPE = dict(vocab_size=97, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
ALL = dict(target_modules="all-linear", r=4, lora_alpha=6)
SMALL = {**SHAPE, **dict(vocab_size=53, hidden_size=16, intermediate_size=20, num_hidden_layers=3, head_dim=6, rms_norm_eps=1e-6,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0)}
NO_HEAD_DIM = {k: v for k, v in {**SMALL, "hidden_size": 24}.items() if k != "head_dim"}
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.3], long_factor=[1.2, 2.5, 4.0], original_max_position_embeddings=32)
WINDOW = dict(sliding_window=7)
VARIANTS = {
    "tied": ("Llama", dict(SHAPE, tie_word_embeddings=True), ALL),
    "llama3": ("Llama", dict(SHAPE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
               dict(target_modules=["q_proj", "v_proj", "down_proj"], r=3, lora_alpha=4, use_rslora=True)),
    "mistral": ("Mistral", dict(SMALL, **WINDOW), ALL),
    "qwen2": ("Qwen2", dict(NO_HEAD_DIM, tie_word_embeddings=True), ALL),
    "qwen2-window": ("Qwen2", dict(NO_HEAD_DIM, use_sliding_window=True, max_window_layers=1, **WINDOW), ALL),
    "qwen3": ("Qwen3", dict(SMALL), ALL),
    "phi3": ("Phi3", dict(NO_HEAD_DIM, **WINDOW), ALL),
    "phi3-long": ("Phi3", dict(NO_HEAD_DIM, max_position_embeddings=128, original_max_position_embeddings=32, rope_parameters=LONGROPE), ALL),
    "phi4": ("Phi3", dict(NO_HEAD_DIM, hidden_size=32, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75)), ALL),
    "gemma2": ("Gemma2", dict(SMALL, hidden_size=24, query_pre_attn_scalar=5, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, **WINDOW), ALL),
    "gemma3": ("Gemma3", dict(SMALL, query_pre_attn_scalar=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"], **WINDOW), ALL),
}
LENGTHS = [70, 9]


def randomise(model, std):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * std + (1.0 if "norm" in name and p.dim() == 1 else 0.0))


def batch(vocabulary):
    tokens = [torch.randint(vocabulary, (n,)) for n in LENGTHS]
    labels = [torch.randint(vocabulary, (n,)) for n in LENGTHS]
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
    optimizer = torch.optim.AdamW(params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    labelled = sum((l != -100).sum().item() for l in labels)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model, tokens, labels) / labelled
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def record(name, family, shape, adapter, out):
    torch.manual_seed(sum(map(ord, name)))
    cfg = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))(**shape)
    cfg._attn_implementation = "eager"
    model = getattr(transformers, family + "ForCausalLM")(cfg).float().eval()
    randomise(model, 0.15)
    tokens, labels = batch(shape["vocab_size"])
    tensors = {f"weights/{k}": v.detach().clone() for k, v in model.named_parameters()}
    tensors["logits"] = logits_of(model, tokens)
    loss = loss_of(model, tokens, labels)
    loss.backward()
    tensors |= {f"full_grad/{k}": p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()

    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **adapter)
    adapter_config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items() if k in (*adapter, "peft_type", "task_type")}
    lora = get_peft_model(model, config).eval()
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
                 adapter_loss=adapter_loss.item(), curve=train(lora, tokens, labels),
                 config=json.loads(cfg.to_json_string()), adapter=adapter_config)
    (out / f"{name}.json").write_text(json.dumps(facts) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for name in sys.argv[2:] or VARIANTS:
        record(name, *VARIANTS[name], out)


if __name__ == "__main__":
    main()
