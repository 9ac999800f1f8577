"""Write tiny Llama folders as transformers saves them, and what is in them.

    python scripts/oracle/hf_folders.py model/testdata NAME

NAME tells apart what different versions of transformers write (v4, v5). Three folders: NAME (untied, bf16, one file), NAME-sharded
(tied, f32, shards) and NAME-scaled (f16, biases, scaled rotary positions, several eos ids), and NAME.json: for each tensor its shape and the
hex of the first eight values and of the sum of the squares, computed in f64.
"""
import json
import os
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

OUT, NAME = sys.argv[1], sys.argv[2]
SHAPE = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=16,
             max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def describe(model):
    out = {}
    for name, t in model.state_dict().items():
        v = t.detach().to(torch.float64).flatten()
        out[name] = {"shape": list(t.shape), "first": [float(x).hex() for x in v[:8]], "squares": float(sum(float(x) * float(x) for x in v)).hex()}
    return out


def save(suffix, dtype, **kwargs):
    torch.manual_seed(len(suffix))
    shard = kwargs.pop("shard", "5GB")
    config = LlamaConfig(**{**SHAPE, **kwargs})
    model = LlamaForCausalLM(config).to(dtype)
    folder = os.path.join(OUT, NAME + suffix)
    model.save_pretrained(folder, max_shard_size=shard, safe_serialization=True)
    return describe(model)


def main():
    os.makedirs(OUT, exist_ok=True)
    if NAME == "v4":  # 4.36 knows neither llama3 nor head_dim
        scaled = {"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    else:
        scaled = {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}, "head_dim": 6, "mlp_bias": True}
    described = {
        NAME: save("", torch.bfloat16),
        NAME + "-sharded": save("-sharded", torch.float32, tie_word_embeddings=True, shard="2KB"),
        NAME + "-scaled": save("-scaled", torch.float16, attention_bias=True, eos_token_id=[2, 3], pad_token_id=4, **scaled),
    }
    with open(os.path.join(OUT, NAME + ".json"), "w") as f:
        json.dump(described, f, sort_keys=True)


main()
