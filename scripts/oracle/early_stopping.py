"""Record what transformers' Trainer with its EarlyStoppingCallback makes of given validation losses: when it stops, and which step is the best.

Needs a venv with torch and transformers. Writes node/best/testdata/early_stopping.json. The model is of no interest: evaluate() answers with the
losses of the case, every second step; all else is the Trainer's own.

    python scripts/oracle/early_stopping.py node/best/testdata/early_stopping.json
"""

import json
import random
import sys
import tempfile

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

EVERY, EVALUATIONS = 2, 12


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(1))

    def forward(self, y, **_):
        return {"loss": ((self.x - y) ** 2).mean()}


class Told(Trainer):
    def evaluate(self, *args, **kwargs):
        metrics = {"eval_loss": self.losses[self.state.global_step // EVERY - 1]}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def run(case):
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            out, max_steps=EVERY * EVALUATIONS, per_device_train_batch_size=1, eval_strategy="steps", eval_steps=EVERY, save_strategy="steps",
            save_steps=EVERY, save_total_limit=1, load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False,
            report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no", remove_unused_columns=False)
        data = [{"y": torch.tensor([float(i)])} for i in range(EVERY * EVALUATIONS)]
        trainer = Told(Line(), args, train_dataset=data, eval_dataset=data[:1],
                       callbacks=[EarlyStoppingCallback(case["patience"], case["threshold"])])
        trainer.losses = case["losses"]
        trainer.train()
        return {**case, "every": EVERY, "stopped": trainer.state.global_step, "best": trainer.state.best_global_step,
                "best_loss": trainer.state.best_metric}


def cases():
    draw = random.Random(5)
    for i in range(24):
        falling = draw.choice([0.0, 0.04, 0.1])
        losses = [round(2 - falling * k + draw.choice([-0.1, -0.05, 0, 0, 0.05, 0.1]), 2) for k in range(EVALUATIONS)]
        yield {"patience": 1 + i % 4, "threshold": [0.0, 0.05, 0.2][i % 3], "losses": losses}


with open(sys.argv[1], "w") as f:
    json.dump([run(c) for c in cases()], f, indent=1)
    f.write("\n")
