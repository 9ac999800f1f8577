"""Record what Hugging Face's BpeTrainer learns from a text, for internal/bpe.

    go run ./internal/world/cmd/worldgen general --seed 2 --docs 400 > docs.jsonl
    python scripts/oracle/bpe_trainer.py docs.jsonl internal/bpe/testdata/hf.json

Needs a venv with tokenizers. The text is not stored: the Go test generates it again.
"""
import hashlib
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

VOCAB = 900
SAMPLES = [
    "Mira Ashford's goats ate 40 sacks of barley.\n\nWho won?",
    "two  spaces   three \t tab\n  end ",
    "it's we'll they've I'd 's",
    "naïve café — “quoted” 1234½ 東京 🙂!",
    " ",
    "",
]


def main(docs_path, out_path):
    docs = [json.loads(line)["text"] for line in open(docs_path, encoding="utf-8")]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(docs, trainer)
    model = json.loads(tok.to_str())["model"]
    vocab = [t for t, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1])]
    splits = [[piece for piece, _ in tok.pre_tokenizer.pre_tokenize_str(s)] for s in SAMPLES]
    record = {
        "docs_sha256": hashlib.sha256("".join(d + "\n" for d in docs).encode()).hexdigest(),
        "vocab_size": VOCAB,
        "merges": [" ".join(m) for m in model["merges"]],
        "alphabet": vocab[3:259],
        "samples": SAMPLES,
        "splits": splits,
    }
    with open(out_path, "w", encoding="utf-8") as out:
        json.dump(record, out, ensure_ascii=False, indent=1)
        out.write("\n")


main(*sys.argv[1:])
