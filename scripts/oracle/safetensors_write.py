"""Write the two small files that model/safetensors must read, and write again byte for byte.

    python scripts/oracle/safetensors_write.py model/safetensors/testdata
"""
import os
import sys

import torch
from safetensors.torch import save_file

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
v = torch.tensor([0.0, -0.0, 1.0, -1.5, 3.0e38, 1.0e-40, 65504.0, 6.1e-5, 5.97e-8, float("inf"), 0.1, 2.0 / 3.0])
save_file({"b.weight": v.reshape(3, 4), "a.bias": v[:5].clone(), "model.layers.10.w": v[:1].reshape(()).clone()},
          os.path.join(out, "f32.safetensors"), metadata={"format": "pt"})
save_file({"f32": v, "bf16": v.to(torch.bfloat16), "f16": v.to(torch.float16), "f16_as_f32": v.to(torch.float16).to(torch.float32),
           "bf16_as_f32": v.to(torch.bfloat16).to(torch.float32), "ids": torch.arange(3)},
          os.path.join(out, "mixed.safetensors"), metadata={"format": "pt"})
# Every f16 bit pattern and what torch widens it to.
h = torch.arange(-32768, 32768, 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
save_file({"half": h.clone(), "widened": h.to(torch.float32)}, os.path.join(out, "half.safetensors"))
