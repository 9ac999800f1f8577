"""Record how Hugging Face tokenises with the embedded base's tokenizer.

    python scripts/oracle/embedded_tokenizer.py embedded/base embedded/testdata/encodings.json

Needs a venv with transformers. The folder is loaded with AutoTokenizer, as a user of the folder would.
"""
import json
import sys

from transformers import AutoTokenizer

TEXTS = [
    "",
    "Story: Mira Ashford sold a cart to Elra Holman.\nQuestion: Who is the buyer?\nAnswer: The buyer is Elra Holman.",
    "Case: Tasa Ashwell filed a complaint of unpaid wages against Stanford Carriers.\nQuestion: Who is the plaintiff?\nAnswer:",
    "two  spaces   three \t tab\n\n end ",
    "it's we'll 600 crowns, 1,234.5%",
    "naïve café — 東京 🙂",
    "</s> in the text <pad>",
]

folder, out = sys.argv[1:]
tok = AutoTokenizer.from_pretrained(folder)
cases = [{"text": t, "ids": tok(t)["input_ids"], "decoded": tok.decode(tok(t)["input_ids"], skip_special_tokens=True)} for t in TEXTS]
with open(out, "w", encoding="utf-8") as f:
    json.dump(cases, f, ensure_ascii=False, indent=1)
    f.write("\n")
