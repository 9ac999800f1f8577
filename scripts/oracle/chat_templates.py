"""Render chat templates as transformers does.

    pip download trl --no-deps && unzip trl-*.whl 'trl/chat_templates/*'
    python scripts/oracle/chat_templates.py trl/chat_templates >data/testdata/chat_templates.json

The templates are the models' own, as TRL (Apache-2.0) carries them. For every template and conversation: what
render_jinja_template gives with and without the heading of the next turn, or null where the template refuses, and the
ranges, in characters, that its {% generation %} blocks cover.
"""
import datetime
import json
import os
import sys

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

FAMILIES = ["llama3", "llama3_1", "llama3_2", "qwen2_5", "qwen3", "qwen3_instruct_2507", "gemma", "gemma3", "phi3", "phi3_5", "deepseek_r1_distill",
            "llama3_training", "qwen2_5_training", "qwen3_training", "gemma_training", "gemma3_training", "phi3_training"]


class Day(datetime.datetime):
    """The day that lorad shows to templates (data.DefaultDate)."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = Day


def turns(*contents, system=None):
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


CONVERSATIONS = {
    "one": turns("Who won?", "The plaintiff."),
    "system": turns("Who won?", "The plaintiff.", system="You are a clerk."),
    "many": turns("A?", "a.", "B?", "b.\n\nc", "C?", "d", system="Be brief."),
    "open": turns("A?", "a.", "B?", system="Be brief."),
    "spaces": turns("  two\n spaces \t", "\n x  y \n"),
    "unicode": turns("日本語 🙂 'q' \"dq\" <b>&amp;</b>", "naïve — {{ not }} {% a %}", system="Ünï €"),
    "empty": turns("", ""),
    "thinking": turns("2+2?", "<think>\nadd\n</think>\n\n4", "3+3?", "<think>\nagain\n</think>\n\n6"),
    "two users": [{"role": "user", "content": "a"}] + turns("b", "c"),
}


def render(template, messages, heading):
    args = dict(chat_template=template, add_generation_prompt=heading, bos_token="<s>", eos_token="</s>")
    marked = "endgeneration" in template
    try:
        text, spans = render_jinja_template([messages], return_assistant_tokens_mask=marked, **args)
    except Exception:
        return {"text": None}
    return {"text": text[0], "spans": spans[0]} if marked else {"text": text[0]}


def main():
    out = {"conversations": CONVERSATIONS, "templates": {}}
    for name in FAMILIES:
        with open(os.path.join(sys.argv[1], name + ".jinja"), encoding="utf-8") as f:
            source = f.read()
        rows = {f"{c}{'+' if heading else ''}": render(source, m, heading) for c, m in CONVERSATIONS.items() for heading in (False, True)}
        out["templates"][name] = {"source": source, "rendered": rows}
    json.dump(out, sys.stdout, ensure_ascii=False, indent=1)


main()
