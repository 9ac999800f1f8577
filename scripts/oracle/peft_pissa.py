"""Record PEFT's PiSSA on the tiny random Llama of llama_grads.py that has biases: engine/llama/testdata/pissa.

    python scripts/oracle/peft_pissa.py engine/llama/testdata

recorded.safetensors has, for init_lora_weights pissa, B A of each module before training as product/MODULE, and the logits of the first sequence
after ten steps as logits: those of the adapter that save_pretrained(path_initial_model_for_weight_conversion=...) writes, on the original base.
recorded.json has the losses of the ten steps, and for pissa_niter_4, whose draws are torch's own, what each module's ||W - s*B A|| is.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from llama_grads import SHAPE, batch, logits_of, train
from peft import LoraConfig, PeftModel, get_peft_model
from peft_family import base
from safetensors.torch import save_file


def adapted(out, init):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=init)
    return get_peft_model(base(out), config).eval()


def modules(model):
    return {name.removeprefix("base_model.model."): m for name, m in model.named_modules() if hasattr(m, "lora_A")}


def converted(model, out, work):
    """The logits of the trained adapter after conversion, on the original base; work/pissa_init is the adapter before training."""
    model.save_pretrained(f"{work}/out", path_initial_model_for_weight_conversion=f"{work}/pissa_init")
    return PeftModel.from_pretrained(base(out), f"{work}/out").eval()


def main():
    out = pathlib.Path(sys.argv[1])
    dst = out / "pissa"
    shutil.rmtree(dst, ignore_errors=True)
    dst.mkdir()
    torch.set_num_threads(1)
    torch.manual_seed(78)
    tokens, labels = batch(SHAPE["vocab_size"])
    model = adapted(out, "pissa")
    tensors = {f"product/{n}": (m.lora_B["default"].weight @ m.lora_A["default"].weight).detach() for n, m in modules(model).items()}
    with tempfile.TemporaryDirectory() as work:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(f"{work}/pissa_init")
        model.peft_config["default"].init_lora_weights = "pissa"
        losses = train(model, tokens, labels)
        trained = logits_of(model, tokens)
        tensors["logits"] = logits_of(converted(model, out, work), tokens)
    print("conversion within", (trained - tensors["logits"]).abs().max().item() / trained.abs().max().item())
    residual = {n: m.base_layer.weight.norm().item() for n, m in modules(adapted(out, "pissa_niter_4")).items()}
    save_file(tensors, dst / "recorded.safetensors")
    facts = dict(tokens=[t.tolist() for t in tokens], labels=[l.tolist() for l in labels], losses=losses, niter=residual)
    (dst / "recorded.json").write_text(json.dumps(facts) + "\n")


main()
