"""Record QLoRA as transformers, PEFT and bitsandbytes compute it, for a tiny random Llama.

    python scripts/oracle/llama_qlora.py engine/llama/testdata/qlora

Writes base/ (bf16), nf4/ and nested/ (the same, quantised and saved by transformers, without and with double quantisation), and
recorded.{json,safetensors}: for each of the two, after PEFT's prepare_model_for_kbit_training, the logits of the first sequence without an
adapter, and with one (adapter/*, of all linear layers) the logits, the loss in nats summed over both sequences, and the adapter's gradients.
Everything is computed in f32 (bnb_4bit_compute_dtype) on weights that are bf16 after decoding. Labels are already shifted.
"""
import json
import pathlib
import shutil
import sys

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
import transformers
from bnb_reference import default_kernels
from llama_grads import batch, loss_of, logits_of, randomise
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

SHAPE = dict(vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             rms_norm_eps=1e-5, max_position_embeddings=256, tie_word_embeddings=False)


def patch():
    """Two things that bitsandbytes does on this CPU only, or only since 0.50, are undone.

    Nested scales are quantised by the torch backend, which finds the codes that the CUDA kernels find. Products use the decoded weight in the
    type it is stored for, as the backward pass does and the forward pass did up to 0.49, and not a kernel that computes in bf16.
    """
    kernels = default_kernels()

    def quantise(A, code=None, absmax=None, out=None, blocksize=4096, nested=False):
        code = F.create_dynamic_map() if code is None else code
        q, scales = kernels["quantize_blockwise"](A, code, blocksize)
        return q, F.QuantState(absmax=scales, code=code, blocksize=blocksize, dtype=A.dtype)

    F.quantize_blockwise = quantise
    bnb.matmul_4bit = lambda A, B, quant_state, bias=None: torch.nn.functional.linear(A, F.dequantize_4bit(B, quant_state).to(A.dtype), bias)


def quantised(base, double, compute=torch.float32, **more):
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                                             bnb_4bit_compute_dtype=compute)
    return transformers.AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=torch.bfloat16, device_map="cpu", **more)


def plain_layout(model):
    """Keeps the weights as they are stored: on some CPUs an evaluation would repack them."""
    for m in model.modules():
        if isinstance(m, bnb.nn.Linear4bit):
            m.support_avx512bf16_for_cpu = False
    return model


def main():
    out = pathlib.Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    torch.manual_seed(31)
    patch()
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()
    randomise(model, 0.15)
    model.to(torch.bfloat16).save_pretrained(out / "base")
    tokens, labels = batch(SHAPE["vocab_size"])
    tensors, facts = {}, dict(tokens=[t.tolist() for t in tokens], labels=[l.tolist() for l in labels])
    adapter = None
    for name, double in (("nf4", False), ("nested", True)):
        model = plain_layout(quantised(out / "base", double))
        model.save_pretrained(out / name)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval()
        facts[f"{name}.f32"] = sorted(k for k, p in model.named_parameters() if p.dtype == torch.float32)
        tensors[f"{name}/logits"] = logits_of(model, tokens)
        lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear")).eval()
        with torch.no_grad():
            for key, p in lora.named_parameters():
                if "lora_" in key:
                    p.copy_(torch.randn_like(p) * 0.2 if adapter is None else adapter[key.replace(".default", "")])
        adapter = {k: v.clone() for k, v in get_peft_model_state_dict(lora).items()}
        tensors[f"{name}/adapter_logits"] = logits_of(lora, tokens)
        loss = loss_of(lora, tokens, labels)
        loss.backward()
        facts[f"{name}.loss"] = loss.item()
        tensors |= {f"{name}/grad/{k.replace('.default', '')}": p.grad.clone() for k, p in lora.named_parameters() if p.requires_grad}
    tensors |= {f"adapter/{k}": v for k, v in adapter.items()}
    save_file(tensors, out / "recorded.safetensors")
    (out / "recorded.json").write_text(json.dumps(facts) + "\n")
    for f in out.glob("*/generation_config.json"):
        f.unlink()


if __name__ == "__main__":
    main()
