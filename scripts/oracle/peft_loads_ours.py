"""Load a base folder, and an adapter folder on it, with transformers and PEFT, and print logits.

    python scripts/oracle/peft_loads_ours.py BASE ADAPTER 1,5,7,2 [1,9 ...]      (ADAPTER may be - for the base alone)

Prints one JSON object: {"tokens": [[...], ...], "logits": [[[...], ...], ...], "warnings": [...]}, f32 logits per sequence, position
and vocabulary entry. A warning of either library about the folders, or a weight that is missing or left over, is a failure: exit 1.
"""
import argparse
import json
import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import safetensors.torch
import torch
import transformers


def load_base(folder):
    dtype = "dtype" if transformers.__version__ >= "5" else "torch_dtype"
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **{dtype: torch.float32})
    return model.eval(), [f"{kind}: {sorted(map(str, what))}" for kind, what in info.items() if what]


def load_adapter(model, folder):
    """PEFT does not say which weights it did not use, so the tensors in the model are compared with the file."""
    model = peft.PeftModel.from_pretrained(model, folder).eval()
    stored = safetensors.torch.load_file(os.path.join(folder, "adapter_model.safetensors"))
    loaded = peft.get_peft_model_state_dict(model)
    problems = [f"adapter: {k} is in one of file and model" for k in sorted(set(stored) ^ set(loaded)) if "base_layer" not in k]
    problems += [f"adapter: {k} differs" for k in sorted(set(stored) & set(loaded)) if not torch.equal(stored[k].float(), loaded[k].float())]
    return model, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("tokens", nargs="+", type=lambda s: [int(t) for t in s.split(",")])
    args = parser.parse_args()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model, problems = load_base(args.base)
        if args.adapter != "-":
            model, more = load_adapter(model, args.adapter)
            problems += more
    problems += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    with torch.no_grad():
        logits = [model(torch.tensor([t])).logits[0].float().tolist() for t in args.tokens]
    json.dump({"tokens": args.tokens, "logits": logits, "warnings": problems}, sys.stdout)
    print()
    sys.exit(1 if problems else 0)


main()
