"""Record what the tokenizers library does with small tokenizers of each family and a corpus of awkward strings.

    python scripts/oracle/tokenizers_fuzz.py model/tokenizer/testdata

Everything is made here, deterministically: the training text, the tokenizers, the strings. For each family NAME it writes
NAME.json.gz = {"tokenizer": <tokenizer.json as text>, "ids", "prefix", "suffix", "text", "plain", "random"}: for every string of
strings.json.gz the ids without special tokens; what special tokens add around them; the decoding of all that with and without
special tokens; and decodings of random ids, which no text gives.

many.json.gz covers ten thousand more strings per family without holding them: both sides draw them from the same parts with the same
generator, and compare 32-bit FNV-1a hashes of the ids and the decoded text, one per four strings.
"""
import base64
import gzip
import io
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = sys.argv[1]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

rng = random.Random(20240229)


def training_text():
    """Words of a made-up language over several scripts, with digits, code and punctuation."""
    syllables = ["ba", "the", "ing", "er", "ka", "lo", "mi", "tion", "qu", "ré", "ño", "straß", "при", "вет", "日本", "語", "안녕", "ال", "नम", "ste"]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 3))) for _ in range(600)]
    lines = []
    for _ in range(3000):
        line = " ".join(rng.choice(words) for _ in range(rng.randint(3, 12)))
        lines.append(line + rng.choice([".", "!", "?\n", ";", " 123", " 4567.89", "'s it", "'LL do", "  (x)", "\n\n\tif x == 1:\n        return y"]))
    return lines


TEXT = training_text()


def train(tok, size, initial=()):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(initial[0]) if initial else [],
                                  initial_alphabet=list(initial[1]) if len(initial) > 1 else [], show_progress=False)
    tok.train_from_iterator(TEXT, trainer)


def bytelevel(split, size, specials, added=(), ignore_merges=False, normalizer=None):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = split
    train(tok, size, ((), sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    tok.add_tokens(list(added))
    tok.decoder = decoders.ByteLevel()
    return tok


def gpt2():
    tok = bytelevel(pre_tokenizers.ByteLevel(add_prefix_space=False), 1200, ["<|endoftext|>"])
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return tok


def gpt2_prefix():
    tok = bytelevel(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]), 700,
                    ["<|endoftext|>"],
                    [AddedToken("<mask>", lstrip=True, special=True, normalized=False), AddedToken("word", single_word=True),
                     AddedToken(" <r>", rstrip=True, normalized=False), AddedToken("<l>", lstrip=True, rstrip=True)])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def llama3():
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok = bytelevel(split, 1500, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], ignore_merges=True)
    # Without their merges the last words of the vocabulary are found by ignore_merges only.
    data = json.loads(tok.to_str())
    del data["model"]["merges"][-60:]
    tok = Tokenizer.from_str(json.dumps(data))
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
                                      special_tokens=[("<|begin_of_text|>", tok.token_to_id("<|begin_of_text|>"))])])
    return tok


def qwen2():
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok = bytelevel(split, 1000, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                    [AddedToken("<tool_call>", normalized=False), AddedToken("ÅB", normalized=True)], normalizer=normalizers.NFC())
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


SPM = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]


def llama2():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)  # for training only
    train(tok, 1100, (SPM,))
    tok.pre_tokenizer = None
    tok = without_byte_specials(tok)
    tok.add_tokens([AddedToken("kation", normalized=True), AddedToken("\n\n", normalized=False)])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return with_bos(tok)


def without_byte_specials(tok):
    """The trainer marks all initial tokens as added; only the first three are."""
    data = json.loads(tok.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in SPM[:3]]
    return Tokenizer.from_str(json.dumps(data))


def with_bos(tok):
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok


def metaspace():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    train(tok, 800, (SPM[:3],))
    tok.add_tokens([AddedToken("New York", normalized=True), AddedToken("<x>", normalized=False, lstrip=True)])
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    return tok


def metaspace_always():
    """All the other options of the parts: nothing split, unknown characters fused, a normalizer that shortens."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Strip(left=True, right=True), normalizers.NFD(), normalizers.Replace("x", "yy"),
                                           normalizers.Replace(Regex(r"\.{3,}"), "…")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)  # for training only
    train(tok, 900, (SPM[:3],))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tok.decoder = decoders.Sequence([decoders.Strip("n", 0, 1), decoders.Replace(Regex("▁+"), "_"), decoders.Strip("_", 1, 0), decoders.ByteFallback()])
    return tok


def deepseek():
    """Several splits in a row, with each of the behaviours."""
    split = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"), pre_tokenizers.Split(Regex(r"\s?\p{P}+"), "isolated"),
        pre_tokenizers.Split("x", "merged_with_previous"), pre_tokenizers.Split(Regex(r"[一-龥]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\p{Lu}"), "contiguous"), pre_tokenizers.Split(Regex(r"[#@]"), "removed"),
        pre_tokenizers.Split(Regex(r"[^~]+"), "removed", invert=True), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return bytelevel(split, 600, ["<|end|>"])


def smollm2():
    tok = bytelevel(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), 900,
                    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"])
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return tok


def qwen3():
    tok = qwen2()
    tok.add_tokens([AddedToken(s, normalized=False) for s in ("<think>", "</think>", "<tool_response>")])
    return tok


def mistral():
    """Since v0.3: no normalizer, one prefix space, nothing split."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)  # for training only
    train(tok, 1000, (SPM,))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tok = without_byte_specials(tok)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("[INST]", "[/INST]", "[TOOL_CALLS]")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return with_bos(tok)


def phi3():
    """Llama 2's with added tokens that take the space after them."""
    tok = llama2()
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False, rstrip=True) for s in ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")])
    return tok


def gemma():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    train(tok, 1100, (["<pad>", "<eos>", "<bos>", "<unk>"] + SPM[3:],))
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:4]
    tok = Tokenizer.from_str(json.dumps(data))
    tok.add_tokens([AddedToken(s, normalized=False) for s in ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<start_of_turn>", "<end_of_turn>", "<table>")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    return tok


PARTS = ["the", "baing", " kation", "при", "вет", "日本", "語", "안녕", " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'s", "'LL", "'", "’s", "1", "23", "4567", ".", ",", "!?", "(", ")", "{}",
         "==", "->", "é", "e\u0301", "ß", "İ", "ſ", "👍", "👍🏽", "👩‍👧", "\u00a0", "\u3000", "\u200d", "Ω", "ﬁ", "x", "X", "#", "@", "~", "_", "-", "/", "\\", "\"", "<s>", "</s>", "<unk>",
         "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<mask>", "word", " <r>", "<l>", "<x>", "New York", "ÅB", "▁", "A", "Zz", "नम", "ال", "½", "٣", "\U0001d54f", "\ue000", "<0x0A>", "\x00", "..."]
PLANES = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0x97f), (0x2000, 0x206f), (0x2100, 0x214f), (0x3000, 0x30ff), (0x4e00, 0x4fff), (0xac00, 0xad00), (0x1f300, 0x1f64f)]


def corpus():
    """About 2,000 strings. Some are chosen, most are drawn from parts that tokenizers are known to trip over."""
    chosen = [
        "", " ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "a", " a", "a ", "Hello world", "hello  world   again    x", "ab\nab", "ab é", "é", "e\u0301",
        "don't DON'T I'LL we'Ve 'ſ it'ſ x'K 'S's", "1 12 123 1234 12345 1.5e-10 ٣٤٥ ⅷ ½ ²", "日本語 안녕하세요 नमस्ते السلام при вет", "👩‍👩‍👧‍👦 👍🏽 🇩🇪 🏳️‍🌈", "\u200b\u200d\ufeff",
        "def f(x):\n    if x == 1:\n        return {'a': [1, 2]}\n", "a" * 300, " " * 300, "\n" * 100, "ab" * 200, "=" * 77, "\u00a0\u2003\u3000 x\u2028y\u0085z",
        "<s>", "</s>", "<unk>", "a<s>b</s> c <unk>d", "<|endoftext|>", "x<|endoftext|> y<|endoftext|>", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "<|im_start|>system\nYou are.<|im_end|>\n", "<tool_call>{}</tool_call>", "a <mask> b  <mask>c", "word a word, words sword word", "x <r>  y  <r>z", "a  <l>  b<l><l> <l>",
        "new york New York NEW YORK nEw YoRkx", "<x> a  <x><x> b", "ÅB A\u030aB ÅBÅB", "▁ ▁▁a▁b", "▁", "a▁ b", "<0x41><0x0A>", "ﬁ ﬂ ﬀ ① ㎏ Ａ", "İI ıi ẞß ΣΑΣ", "... .... . ..", "x# @y ~z~~ ##",
        "\x00\x01\x1f\x7f\x80\x9f", "\ud7ff\ue000\uffff\U0010ffff", "x\u0301\u0302\u0303", "\u1100\u1161\u11a8", "Ⅷ ⅷ ǅ ﷺ", "\u180e\u1680\u205f", "A\u0300 \u0300A", "🤖" * 50, "qu" * 50 + "é" * 50,
    ]
    drawn = ["".join(rng.choice(PARTS) for _ in range(rng.randint(1, 14))) for _ in range(1300)]
    noise = ["".join(chr(rng.randint(*rng.choice(PLANES))) for _ in range(rng.randint(1, 24))) for _ in range(500)]
    lines = [rng.choice(TEXT)[: rng.randint(5, 80)] for _ in range(150)]
    return chosen + drawn + noise + lines


def dump(name, value):
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0) as z:
        z.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode())
    path = os.path.join(OUT, name + ".json.gz")
    with open(path, "wb") as f:
        f.write(raw.getvalue())
    print(path, len(raw.getvalue()))


def record(name, tok, strings):
    ids = [tok.encode(s, add_special_tokens=False).ids for s in strings]
    special = [tok.encode(s).ids for s in strings]
    empty = tok.encode("").ids
    prefix, suffix = ([], empty) if name == "metaspace" else (empty, [])
    assert special == [prefix + i + suffix for i in ids]
    draws = [[rng.randrange(tok.get_vocab_size()) for _ in range(rng.randint(1, 12))] for _ in range(400)]
    dump(name, {"tokenizer": tok.to_str(), "ids": ids,
                "prefix": prefix, "suffix": suffix,
                "text": [tok.decode(i, skip_special_tokens=False) for i in special],
                "plain": [tok.decode(i, skip_special_tokens=True) for i in special],
                "random": [[i, tok.decode(i, skip_special_tokens=False)] for i in draws]})


MORE = ["<think>", "</think>", "[INST]", "[/INST]", "<|end|>", "<|user|> ", "<|im_start|>", "<start_of_turn>", "<bos>", "    ", "\n    ", "return", "0x1F", "http://a.b/c?d=1", "😀😀", "ÅB"]
COUNT, PER_HASH = 10240, 4


class Draw:
    """A linear congruential generator (Knuth's MMIX), the same in the Go test."""

    def __init__(self):
        self.state = 20261123

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def string(self):
        return "".join(self.part() for _ in range(1 + self.below(16)))

    def part(self):
        if self.below(5) == 0:
            first, last = PLANES[self.below(len(PLANES))]
            return chr(first + self.below(last - first + 1))
        return (PARTS + MORE)[self.below(len(PARTS) + len(MORE))]


def fnv(h, data):
    for b in data:
        h = ((h ^ b) * 16777619) % 2**32
    return h


def many(makers):
    draw, hashes = Draw(), {}
    strings = [draw.string() for _ in range(COUNT)]
    for name, tok in makers.items():
        out = []
        for i in range(0, COUNT, PER_HASH):
            h = 2166136261
            for s in strings[i:i + PER_HASH]:
                ids = tok.encode(s, add_special_tokens=True).ids
                h = fnv(h, b"".join(t.to_bytes(4, "little") for t in ids))
                h = fnv(h, tok.decode(ids, skip_special_tokens=False).encode())
            out.append(h.to_bytes(4, "little"))
        hashes[name] = base64.b64encode(b"".join(out)).decode()
    dump("many", {"parts": PARTS + MORE, "planes": PLANES, "count": COUNT, "per_hash": PER_HASH, "hashes": hashes})


def main():
    os.makedirs(OUT, exist_ok=True)
    strings = corpus()
    print(len(strings), "strings")
    dump("strings", strings)
    makers = (gpt2, gpt2_prefix, llama3, qwen2, llama2, metaspace, metaspace_always, deepseek, smollm2, qwen3, mistral, phi3, gemma)
    toks = {make.__name__: make() for make in makers}
    for name, tok in toks.items():
        record(name, tok, strings)
    many(toks)


main()
