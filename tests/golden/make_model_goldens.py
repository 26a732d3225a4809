#!/usr/bin/env python3
"""Writes tests/golden/tokenizer.json and tests/golden/template.json.

Token ids come from the `tokenizers` library over vocabularies read with `gguf`, renderings from
`jinja2` with the settings of transformers' apply_chat_template. Needs those three packages and:

    python3 tests/golden/make_model_goldens.py --smollm SmolLM2.gguf --gpt2 gpt-2.gguf --phi3 phi-3.gguf

The texts and the templates below were written for this project. The llama-bpe vocabulary is trained
here on the texts; the three others stay in their files, which the test skips when they are absent.
"""
import argparse
import json
import os

from gguf import GGUFReader
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))

TEXTS = [
    "",
    " ",
    "a",
    "The kettle sings at seven; nobody's awake, we'll wait.",
    "It's, IT'S, they'Re, don'T, we'lL, I'VE, you'd, 'tis, rock'n'roll, 'S 'ſ x'ſy",
    "  two leading,  two inside, three trailing   ",
    "tab\there\t\tthere\t \t mixed \n\n\n three breaks\r\n\r\nwindows \r old mac\n ",
    "1 22 333 4444 55555 3.14159 1,000,000 2026-11-22 0x1F 7th ½ Ⅷ ٣٤٥ 一二三 x²",
    "Der Fuchs überquert die Straße, größer als gedacht. Ça va où l'été? ¿Qué año?",
    "Лиса переходит дорогу, а ёж спит. Ποια μέρα είναι σήμερα;",
    "狐狸穿过马路。明日は晴れですか？ 여우가 길을 건넌다.",
    "الثعلب يعبر الطريق. השועל חוצה את הכביש. लोमड़ी सड़क पार करती है। สุนัขจิ้งจอก",
    "🦊🛣️ 👩‍👩‍👧‍👦 🇫🇷 e\u0301 n\u0303 \u00a0nbsp\u3000wide\u2028line\u0085next",
    "def f(xs):\n    return {k: v**2 for k, v in xs if k != '_'}  # fn\n\nfor(;;){i+=1;}//\n",
    "<|im_start|>user\nspelled out<|im_end|>\n<|endoftext|><|im_end<|im_end|>|>",
    "<s>[INST] words </s> <|begin_of_text|>x<|eot_id|> <|user|><|end|>",
    "https://example.org/a?b=c&d=%20e#f user@example.org $9.99 50% (a)[b]{c} \"q\" — – … “z”",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "================----------------________________!!!!!!!!!!!!!!!!??\n!!\n\n ??",
    "\x01control\x7fbytes\u200bzero\ufeffwidth \ufffd \U0010ffff \u0378",
    "quixotic zyzzyva",
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def pre_tokenizer(kind):
    byte = lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    if kind == "gpt-2":
        return byte(True)
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte(True)])
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    return pre_tokenizers.Sequence([split, byte(False)])


def bpe(kind, tokens, merges):
    model = models.BPE(vocab={s: i for i, s in enumerate(tokens)},
                       merges=[tuple(m.split(" ")) for m in merges],
                       ignore_merges=kind == "llama-bpe")
    t = Tokenizer(model)
    t.pre_tokenizer = pre_tokenizer(kind)
    return t


def spm(tokens, scores, types):
    """SentencePiece BPE as merges: every split of every token, best score first."""
    ids = {s: i for i, s in enumerate(tokens)}
    words = {s for s, y in zip(tokens, types) if y in (1, 4, 5)}
    merges = []
    for s in words:
        for k in range(1, len(s)):
            a, b = s[:k], s[k:]
            if a in words and b in words:
                merges.append((-scores[ids[s]], ids[a], ids[b], a, b))
    merges.sort()
    t = Tokenizer(models.BPE(vocab=ids, merges=[(a, b) for *_, a, b in merges], byte_fallback=True,
                             unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return t


def read(path):
    fields = GGUFReader(path).fields
    get = lambda k: fields["tokenizer.ggml." + k].contents() if "tokenizer.ggml." + k in fields else None
    return {k: get(k) for k in ("tokens", "merges", "token_type", "scores")}


def ids(t):
    return [t.encode(s, add_special_tokens=False).ids for s in TEXTS]


def bpe_case(kind, vocab):
    control = [s for s, y in zip(vocab["tokens"], vocab["token_type"]) if y == 3]
    plain = bpe(kind, vocab["tokens"], vocab["merges"])
    special = bpe(kind, vocab["tokens"], vocab["merges"])
    special.add_special_tokens([AddedToken(s, normalized=False) for s in control])
    return {"plain": ids(plain), "special": ids(special)}


def words(kind):
    """Lengths in bytes of the words that `kind` cuts every text into."""
    pre = pre_tokenizer(kind)
    return [[len(text[a:b].encode()) for _, (a, b) in pre.pre_tokenize_str(text)] for text in TEXTS]


def train_llama_bpe():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer("llama-bpe")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet,
                                                     show_progress=False))
    model = json.loads(t.to_str())["model"]
    tokens = [s for s, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1])]
    # Reached only because llama-bpe takes a word that is a token before looking at merges.
    tokens += ["quixotic", "Ġzyzzyva", "<|begin_of_text|>", "<|eot_id|>"]
    types = [1] * (len(tokens) - 2) + [3, 3]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {"tokens": tokens, "merges": merges, "token_type": types}


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml-default": "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
                      "{{ '<|im_start|>system\\nIt\\'s a \"test\".<|im_end|>\\n' }}{% endif %}"
                      "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
                      "{% endfor %}{% if add_generation_prompt %}"
                      "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama-2": "{% set sys = messages[0]['content'] if messages[0]['role'] == 'system' else none %}"
               "{% for m in (messages[1:] if sys is not none else messages) %}"
               "{% if loop.first and sys is not none %}"
               "{% set text = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}"
               "{% else %}{% set text = m['content'] %}{% endif %}"
               "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
               "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama-3": "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
               "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
               "{{ m['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
               "{% if add_generation_prompt %}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}\n{% if m['role'] == 'user' %}\n"
              "{{ '<|user|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n"
              "{{ '<|system|>\\n' + m['content'] + eos_token }}\n{% else %}\n"
              "{{ '<|assistant|>\\n' + m['content'] + eos_token }}\n{% endif %}\n"
              "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
              "{% endfor %}",
}

CONVERSATIONS = [
    (None, ["Where do foxes sleep?"], ["In dens."]),
    ("Answer in one word.", ["Where do foxes sleep?", "  And owls?\n"], ["Dens.", "\n Trees. "]),
    (" Padded system. \n", [" one", "two\u00a0", "three <|im_end|> four"], ["1 ", "2", "3"]),
    ("", ["Empty system message."], ["Yes."]),
]


def render(jinja, messages, generate, bos, eos):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return env.from_string(jinja).render(messages=messages, add_generation_prompt=generate,
                                         bos_token=bos, eos_token=eos)


def template_cases(name, jinja, bos, eos, keep_text):
    out = []
    for system, users, replies in CONVERSATIONS:
        messages = [] if system is None else [{"role": "system", "content": system}]
        prompts = []
        for user, reply in zip(users, replies):
            messages.append({"role": "user", "content": user})
            prompts.append(render(jinja, messages, True, bos, eos))
            messages.append({"role": "assistant", "content": reply})
        out.append({"system": system, "users": users, "replies": replies, "prompts": prompts,
                    "whole": render(jinja, messages, False, bos, eos)})
    return {"name": name, "jinja": jinja if keep_text else None, "bos": bos, "eos": eos, "cases": out}


def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, indent=None, separators=(",", ":"))
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--smollm", required=True)
    p.add_argument("--gpt2", required=True)
    p.add_argument("--phi3", required=True)
    a = p.parse_args()
    llama = train_llama_bpe()
    phi3 = read(a.phi3)
    write("tokenizer.json", {
        "texts": TEXTS,
        "words": {k: words(k) for k in ("gpt-2", "smollm", "llama-bpe")},
        "smollm": bpe_case("smollm", read(a.smollm)),
        "gpt-2": bpe_case("gpt-2", read(a.gpt2)),
        "phi-3": {"plain": ids(spm(phi3["tokens"], phi3["scores"], phi3["token_type"]))},
        "llama-bpe": dict(llama, **bpe_case("llama-bpe", llama)),
    })
    ends = {"llama-2": ("<s>", "</s>"), "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
            "zephyr": ("<s>", "</s>")}
    cases = [template_cases(n, t, *ends.get(n, ("<|im_start|>", "<|im_end|>")), True)
             for n, t in TEMPLATES.items()]
    jinja = GGUFReader(a.smollm).fields["tokenizer.chat_template"].contents()
    cases.append(template_cases("smollm", jinja, "<|im_start|>", "<|im_end|>", False))
    write("template.json", cases)


if __name__ == "__main__":
    main()
