"""What Hugging Face makes of records: rendered chat templates, token ids and labels, for data/testdata/.

Needs a venv with transformers and tokenizers. Run from the repository root: python scripts/oracle/data_examples.py
Writes data/testdata/tokenizer.json (a byte-level BPE of a few hundred tokens) and data/testdata/examples.json.

Labels follow TRL's SFT trainer: tokenise the prompt and prompt + completion, mask what they have in common at the
start. TRL leaves BOS to the chat template; lorad puts it in front once in any case, and so does this script.
"""

import hashlib
import json
import pathlib
import struct

import jinja2
import jinja2.ext
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

OUT = pathlib.Path("data/testdata")
SPECIAL = ["<s>", "</s>", "<|turn|>", "<|end|>"]
CORPUS = [
    "The court finds for the plaintiff. The defendant shall pay 1,200 to Anna Berg.",
    "Who is the plaintiff in this case? The plaintiff is Anna Berg, a baker from Norden.",
    "Question and answer, system and user and assistant, instruction and response.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
] * 4


def make_tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>")


# Written for this test; each has the means of a family of templates that are in use.
TEMPLATES = {
    "turns": "{% for m in messages %}\n<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}\n"
             "{% if add_generation_prompt %}\n<|turn|>assistant\n{% endif %}",
    "eos": "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
           "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
           "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
           "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "wrapped": "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
               "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
               "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
               "{{ raise_exception('roles must alternate') }}{% endif %}"
               "{% if loop.index0 == 0 and system != false %}{% set content = '<<' + system + '>>\n\n' + m['content'] %}"
               "{% else %}{% set content = m['content'] %}{% endif %}"
               "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
               "{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "header": "{{- bos_token }}\n{%- if date_string is not defined %}\n    {%- if strftime_now is defined %}\n"
              "        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}\n        {%- set date_string = 'never' %}\n"
              "    {%- endif %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n"
              "    {%- set system = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n"
              "    {%- set system = '' %}\n{%- endif %}\n{{- '<|turn|>system\n\nToday: ' + date_string + '\n\n' + system + '<|end|>' }}\n"
              "{%- if tools is not none %}{{- 'tools!' }}{%- endif %}\n"
              "{%- for m in messages %}\n    {{- '<|turn|>' + m.role + '\n\n' + m.content | trim + '<|end|>' }}\n{%- endfor %}\n"
              "{%- if add_generation_prompt %}\n    {{- '<|turn|>assistant\n\n' }}\n{%- endif %}\n",
    "spaces": "{%- set ns = namespace(seen=0, last=messages|length - 1) -%}\n{%- macro box(x) -%}[{{ x }}]{%- endmacro -%}\n"
              "{% for m in messages -%}\n  {%- if m.content is string and m.content.startswith('Who') %}\n"
              "    {%- set ns.seen = ns.seen + 1 %}\n  {%- endif %}\n"
              "  {%- set body = m.content.split('. ')|first if m.role == 'system' else m.content %}\n"
              "  {{- box(m.role|upper) ~ ' ' ~ body ~ (' ' * 2) }}\n"
              "  {%- if m.role == 'user' %}{{ m.content|tojson }}{% endif %}{% generation %}{% endgeneration %}\n"
              "  {%- if not loop.last %}{{ '\n' }}{% endif %}\n{%- endfor %}\n"
              "{%- if ns.seen > 1 and messages[ns.last]['role'] == 'user' %} {{ ns.seen }} questions{% endif %}\n"
              "{%- if add_generation_prompt %}{{ '\n[ASSISTANT] ' }}{% endif %}",
}

CHATS = {
    "one": [("user", "Who is the plaintiff?"), ("assistant", "Anna Berg is.")],
    "system": [("system", " Answer in one line. Be brief. "), ("user", "Who pays?"), ("assistant", " The defendant. ")],
    "two": [("user", "Who pays?"), ("assistant", "The defendant."), ("user", "How much?\n"), ("assistant", "1,200 — no “more”.")],
    "open": [("system", "Be brief."), ("user", "Who pays?"), ("assistant", "She."), ("user", "Who?")],
}

RECORDS = [
    {"text": "The court finds for the plaintiff."},
    {"text": "Ends already.</s>"},
    {"prompt": "Who pays? ", "completion": "The defendant pays."},
    {"prompt": "The def", "completion": "endant shall pay."},
    {"prompt": "", "completion": "The court."},
    {"prompt": "Answer: ", "completion": ""},
]


def shifted(ids, learnt):
    return [ids[i + 1] if i + 1 < len(ids) and learnt[i + 1] else -100 for i in range(len(ids))]


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def labelled(tok, text, spans, close):
    def encode(s):
        ids = tok(s, add_special_tokens=False)["input_ids"]
        return ids if ids[:1] == [tok.bos_token_id] else [tok.bos_token_id] + ids

    ids = encode(text)
    learnt = [False] * len(ids)
    for a, b in spans:
        start = 0 if a == 0 else common(encode(text[:a]), ids)
        stop = len(ids) if b == len(text) else common(encode(text[:b]), ids)
        learnt[start:stop] = [True] * (stop - start)
    if close and ids[-1] != tok.eos_token_id:
        ids, learnt = ids + [tok.eos_token_id], learnt + [True]
    return {"tokens": ids, "labels": shifted(ids, learnt)}


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}: a block that only marks its text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def environment():
    """The template environment of transformers (utils/chat_template_utils.py), with a fixed day."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    env.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda f: {"%d %b %Y": "26 Jul 2024"}[f]
    return env


def chats(tok):
    env, out = environment(), []
    for template, source in TEMPLATES.items():
        compiled = env.from_string(source)

        def render(messages, generation):
            return compiled.render(messages=messages, add_generation_prompt=generation, bos_token="<s>", eos_token="</s>",
                                   tools=None, documents=None)

        if "strftime" not in source:  # our environment is theirs
            tok.chat_template = source
            m = [{"role": r, "content": c} for r, c in CHATS["two"]]
            assert tok.apply_chat_template(m, tokenize=False, add_generation_prompt=True) == render(m, True)
        for chat, turns in CHATS.items():
            messages = [{"role": r, "content": c} for r, c in turns]
            row = {"template": source, "name": f"{template}/{chat}", "messages": messages,
                   "rendered": render(messages, False), "prompt": render(messages, True)}
            while messages[-1]["role"] != "assistant":
                messages = messages[:-1]
            text, spans = render(messages, False), []
            for k, m in enumerate(messages):
                if m["role"] == "assistant":
                    before, through = render(messages[:k], True), render(messages[: k + 1], False)
                    assert text.startswith(through) and through.startswith(before), row["name"]
                    spans.append((len(before), len(through)))
            row.update(labelled(tok, text, spans, close=template == "spaces"))
            out.append(row)
    return out


def manifest(examples):
    """The byte encoding that data.Manifest documents: (tokens, labels, difficulty) of train, val = nothing."""
    h = hashlib.sha256(b"lorad-manifest/1\n" + struct.pack("<Q", len(examples)))
    for tokens, labels, difficulty in examples:
        n = len(tokens)
        h.update(struct.pack(f"<Q{n}i{n}id", n, *tokens, *labels, difficulty))
    h.update(struct.pack("<Q", 0))
    return h.hexdigest()


def difficulty(text):
    words = text.split()
    return len(words) / 100 + len(set(words)) / len(words) if words else 0.0


def records(tok):
    out = []
    for r in RECORDS:
        prompt, answer = r.get("prompt", ""), r.get("completion", r.get("text"))
        text = prompt + answer
        out.append({"record": r, **labelled(tok, text, [(len(prompt), len(text))], close=True)})
    return out


def main():
    OUT.mkdir(exist_ok=True)
    tok = make_tokenizer()
    (OUT / "tokenizer.json").write_text(tok.backend_tokenizer.to_str(pretty=False))
    rows = {"records": records(tok), "chats": chats(tok)}
    rows["manifest"] = [manifest([
        (r["tokens"], r["labels"], difficulty(r["record"].get("prompt", "") + " " + r["record"].get("completion", r["record"].get("text"))))
        for r in rows["records"]])]
    lines = ",\n".join(f' "{k}": [\n  ' + ",\n  ".join(json.dumps(r) for r in v) + "\n ]" for k, v in rows.items())
    (OUT / "examples.json").write_text("{\n" + lines + "\n}\n")


main()
