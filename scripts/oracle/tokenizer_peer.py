"""Times the tokenizers library in one thread against model/tokenizer, in turns, on the same 10 MB of English.

    go test -c -o /tmp/tokenizer.test ./model/tokenizer && python scripts/oracle/tokenizer_peer.py /tmp/tokenizer.test FOLDER [rounds]

The text is what the comments of Go's own sources say, one document per file: 10 MB that every machine with Go has. The vocabularies of real
models cannot be had everywhere, so tokenizers of their sizes and shapes are trained on all the comments and some code, once, into
FOLDER. Both sides encode the documents one by one ("documents") and the text as a whole ("text"), and must give the same ids. Prints MB per
second of processor time (all that the process used, garbage collection included), the best of all rounds, and the median of the rounds' ratios.
"""
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import bisect
import hashlib
import itertools
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

import numpy
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SIZE = 10_000_000
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def sources():
    root = pathlib.Path(subprocess.check_output(["go", "env", "GOROOT"], text=True).strip()) / "src"
    return [p.read_text(errors="replace") for p in sorted(root.rglob("*.go")) if p.is_file()]


def comments(files):
    """The comments of each file that has some."""
    docs = ["\n".join(re.findall(r"(?m)^\s*//(?!go:|line)\s(.*)$", text)) + "\n" for text in files]
    return [d for d in docs if len(d) >= 300 and "\0" not in d]


def documents(docs):
    """The first 10 MB of the comments."""
    ends = list(itertools.accumulate(len(d.encode()) for d in docs))
    return docs[:bisect.bisect(ends, SIZE)]


def bytelevel(split, size, corpus, normalizer=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = split
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                                        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False))
    tok.decoder = decoders.ByteLevel()
    return tok


def split(digits):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CONTRACTIONS + digits + REST), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2(corpus):
    return bytelevel(pre_tokenizers.ByteLevel(add_prefix_space=False), 50_000, corpus)


def llama3(corpus):
    return bytelevel(split(r"\p{N}{1,3}"), 128_000, corpus, ignore_merges=True)


def qwen2(corpus):
    return bytelevel(split(r"\p{N}"), 128_000, corpus, normalizers.NFC())


def llama2(corpus):
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # For training only. The sentencepiece library puts no line end into a piece.
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="never", split=True)])
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=32_000, special_tokens=specials, limit_alphabet=1000, show_progress=False))
    tok.pre_tokenizer = None
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(data))


def prepare(folder):
    """Writes the text and the tokenizers into a folder, what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sources()
    prose = comments(files)
    docs = documents(prose)
    (folder / "documents.txt").write_text("\0".join(docs))
    for make in (llama2, gpt2, llama3, qwen2):
        path = folder / f"{make.__name__}.json"
        if not path.exists():
            print("training", make.__name__, file=sys.stderr, flush=True)
            make(prose + files[::20]).save(str(path))
    embedded = folder / "embedded.json"
    embedded.write_text(pathlib.Path("embedded/base/tokenizer.json").read_text())
    return docs


def ours(binary, folder, name, kind):
    out = subprocess.run([binary, "-test.run", "^$", "-test.bench", f"Corpus/{name}/{kind}$", "-test.benchtime", "1x",
                          "-test.cpu", "1", "-corpus", str(folder)], capture_output=True, text=True, check=True).stdout
    return float(re.search(r"([\d.]+) MB/cpu-s", out).group(1)), re.search(r"ids ([0-9a-f]+)", out).group(1)


def peer(tok, docs, kind):
    texts = docs if kind == "documents" else ["".join(docs)]
    start = time.process_time()
    ids = [tok.encode(t, add_special_tokens=False).ids for t in texts]
    took = time.process_time() - start
    h = hashlib.sha256()
    for i in ids:
        h.update(numpy.array(i, dtype="<i4").tobytes())
    return sum(len(t.encode()) for t in texts) / took / 1e6, h.hexdigest()


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    docs = prepare(folder)
    print(f"{len(docs)} documents, {sum(len(d.encode()) for d in docs) / 1e6:.1f} MB")
    for name in ("llama2", "gpt2", "llama3", "qwen2", "embedded"):
        tok = Tokenizer.from_file(str(folder / f"{name}.json"))
        tok.no_padding(), tok.no_truncation()
        for kind in ("documents", "text"):
            pairs = []
            for _ in range(rounds):
                (a, mine), (b, theirs) = ours(binary, folder, name, kind), peer(tok, docs, kind)
                assert mine == theirs, f"{name} {kind}: the ids differ"
                pairs.append((a, b))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{name:9} {kind:9} lorad {max(a for a, _ in pairs):6.2f} MB/s  tokenizers {max(b for _, b in pairs):6.2f} MB/s"
                  f"  ratio {ratio:.2f} (least {min(a / b for a, b in pairs):.2f})  {tok.get_vocab_size()} tokens", flush=True)


main()
