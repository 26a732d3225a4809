#!/usr/bin/env python3
"""Checks the data of a pack and writes its card.

    python3 workloads/cards.py FOLDER [--tokens-median N]   check the data, write FOLDER/card.json
    python3 workloads/cards.py --check FOLDER...            check data and card, write nothing
    python3 workloads/cards.py --check-data FILE...         check a data file that has no card yet

The data of the pack `x` is x/x.jsonl. N is the median number of tokens of a whole item,
rounded, chat template included, by SmolLM2's tokenizer; it must be given when the data has changed. Only the
standard library is used. Exit code 1 when something is wrong; every problem is printed."""
import argparse
import collections
import hashlib
import json
import os
import re
import sys

FAMILIES = ["short-qa", "long-multi-turn", "shared-system", "late-recall", "topic-return",
            "pasted-tool", "summarise-ask", "edit-regenerate"]
TARGETS = ["es", "fr", "de"]
SHARED_RUN = 12  # words that no two items may have in common in a row
ITEMS_MIN = 24
PASTED = 900  # characters; nobody types that much
CHAT_TURNS = (3, 12)
SEGMENTS = (4, 12)

DESCRIPTIONS = {
    "chat": "English dialogues between a user and an assistant in eight families, with recorded "
            "replies and facts to check. Made for replaying turn by turn.",
    "translation": "English documents cut into segments, with reference translations into "
                   "Spanish, French and German and a glossary that must be kept. Made for "
                   "replaying segment by segment.",
}
PROVENANCE = ("Original text written for this project. Nothing was copied from other works; "
              "people, places, products and numbers are invented.")


def fold(text):
    return re.sub(r"\s+", " ", text.casefold().replace("\u2019", "'"))


def words(text):
    return re.findall(r"\w+", text.casefold())


class Pack:
    """The items of a data file and what is wrong with them."""

    def __init__(self, path):
        self.path = path
        self.problems = []
        self.items = []
        with open(path, "rb") as f:
            data = f.read()
        self.sha256 = hashlib.sha256(data).hexdigest()
        for number, line in enumerate(data.decode("utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                self.items.append((number, json.loads(line)))
            except ValueError as e:
                self.problem(number, "not JSON: %s" % e)

    def problem(self, number, text):
        where = "%s, line %d" % (self.path, number) if number else self.path
        self.problems.append("%s: %s" % (where, text))

    def is_translation(self):
        return any("source_lang" in item.get("meta", {}) for _, item in self.items)

    def turns(self, item):
        """Pairs (user message, reply) in file order."""
        m = [x for x in item["messages"] if x["role"] != "system"]
        return list(zip(m[0::2], m[1::2]))

    def check(self):
        seen = {}
        for number, item in self.items:
            try:
                self.check_item(number, item, seen)
            except (KeyError, TypeError, AttributeError) as e:
                self.problem(number, "field missing or of the wrong kind: %r" % e)
        if not self.problems:
            self.check_whole()
            self.check_shared_runs()
        return self.problems

    def check_item(self, number, item, seen):
        name = item["id"]
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            self.problem(number, "the id '%s' is not small letters, digits and hyphens" % name)
        if name in seen:
            self.problem(number, "the id '%s' was used in line %d" % (name, seen[name]))
        seen[name] = number
        if self.check_roles(number, item["messages"]):
            self.check_replaces(number, item["messages"])
            self.check_questions(number, item["messages"])
            self.check_checks(number, item)
            self.check_length(number, item)
        for key in ("family", "lang", "title"):
            if not item["meta"].get(key):
                self.problem(number, "meta.%s is missing" % key)

    def check_roles(self, number, messages):
        roles = [m["role"] for m in messages]
        body = roles[1:] if roles[:1] == ["system"] else roles
        fine = (len(body) >= 2 and len(body) % 2 == 0 and
                all(r == ("user", "assistant")[i % 2] for i, r in enumerate(body)))
        if not fine:
            self.problem(number, "roles must be system?, then user and assistant in turn")
        if any(not m["content"].strip() for m in messages):
            self.problem(number, "a message is empty")
            return False
        return fine

    def check_replaces(self, number, messages):
        for i, m in enumerate(messages):
            r = m.get("replaces")
            if r is None:
                continue
            if m["role"] != "user" or not 0 <= r < i or messages[r]["role"] != "user":
                self.problem(number, "'replaces' of message %d is no earlier user message" % i)

    def check_questions(self, number, messages):
        """A message that is pasted material beside a question names the question."""
        for i, m in enumerate(messages):
            q = m.get("question")
            if q is None and m["role"] == "user" and len(m["content"]) > PASTED:
                self.problem(number, "message %d is pasted material without a 'question'" % i)
            if q is not None and (m["role"] != "user" or not q.strip() or q not in m["content"]):
                self.problem(number, "'question' of message %d is no part of a user message" % i)

    def check_checks(self, number, item):
        turns = self.turns(item)
        for c in item["meta"].get("checks", []):
            if not 0 <= c["turn"] < len(turns) or not c["any"] or not all(c["any"]):
                self.problem(number, "a check of turn %r is empty or out of range" % c["turn"])
                continue
            reply = fold(turns[c["turn"]][1]["content"])
            if not any(fold(s) in reply for s in c["any"]):
                self.problem(number, "none of %r is in the reply of turn %d" %
                             (c["any"], c["turn"]))

    def check_length(self, number, item):
        meta, n = item["meta"], len(self.turns(item))
        low, high = SEGMENTS if "source_lang" in meta else CHAT_TURNS
        if not low <= n <= high:
            self.problem(number, "%d turns; %d to %d are wanted" % (n, low, high))
        if "source_lang" not in meta:
            return
        if not 2 <= len(meta.get("terms", [])) <= 6:
            self.problem(number, "2 to 6 glossary terms are wanted")
        system = fold(item["messages"][0]["content"])
        for source, target in meta.get("terms", []):
            if fold(source) not in system or fold(target) not in system:
                self.problem(number, "the term '%s' is not in the instruction" % source)

    def check_whole(self):
        if len(self.items) < ITEMS_MIN:
            self.problem(0, "%d items; at least %d are wanted" % (len(self.items), ITEMS_MIN))
        key, wanted = ("lang", TARGETS) if self.is_translation() else ("family", FAMILIES)
        present = {item["meta"][key] for _, item in self.items}
        for missing in sorted(set(wanted) - present):
            self.problem(0, "no item of %s '%s'" % (key, missing))
        for extra in sorted(present - set(wanted)):
            self.problem(0, "unknown %s '%s'" % (key, extra))

    def check_shared_runs(self):
        owner, told = {}, set()
        for number, item in self.items:
            for m in item["messages"]:
                w = words(m["content"]) if m["role"] != "system" else []
                for i in range(len(w) - SHARED_RUN + 1):
                    run = " ".join(w[i:i + SHARED_RUN])
                    other = owner.setdefault(run, item["id"])
                    if other != item["id"] and (other, item["id"]) not in told:
                        told.add((other, item["id"]))
                        self.problem(number, "'%s' shares with '%s': %s" %
                                     (item["id"], other, run))

    def counts(self):
        n_turns = sum(len(self.turns(item)) for _, item in self.items)
        checks = sum(len(item["meta"].get("checks", [])) for _, item in self.items)
        return {"items": len(self.items), "turns": n_turns, "checks": checks}

    def values(self, key):
        """Distinct values of a meta field, in order of appearance."""
        return list(collections.OrderedDict((item["meta"][key], 0) for _, item in self.items))


def data_file(folder):
    name = os.path.basename(os.path.normpath(folder))
    return os.path.join(folder, name + ".jsonl")


def read_card(folder):
    path = os.path.join(folder, "card.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def check_card(folder, pack):
    card = read_card(folder)
    if card is None:
        pack.problem(0, "there is no card.json")
        return
    want = dict(pack.counts(), tokens_median=card.get("counts", {}).get("tokens_median"))
    for key, value in (("sha256", pack.sha256), ("counts", want),
                       ("languages", pack.values("lang")), ("families", pack.values("family"))):
        if card.get(key) != value:
            pack.problem(0, "card.json: '%s' is %r, the data has %r" % (key, card.get(key), value))
    if not isinstance(want["tokens_median"], int) or want["tokens_median"] <= 0:
        pack.problem(0, "card.json: 'counts.tokens_median' is missing")


def write_card(folder, pack, tokens_median):
    name = os.path.basename(os.path.normpath(folder))
    old = read_card(folder)
    if tokens_median is None and old and old.get("sha256") == pack.sha256:
        tokens_median = old["counts"]["tokens_median"]
    if tokens_median is None:
        pack.problem(0, "the data is new: give --tokens-median")
        return
    card = {
        "name": name,
        "description": DESCRIPTIONS[name],
        "licence": "CC0-1.0",
        "creator": "kvgauge contributors",
        "file": os.path.basename(pack.path),
        "sha256": pack.sha256,
        "format": "openai",
        "languages": pack.values("lang"),
        "families": pack.values("family"),
        "counts": dict(pack.counts(), tokens_median=tokens_median),
        "provenance": PROVENANCE,
        "personal_data": "none (invented)",
    }
    with open(os.path.join(folder, "card.json"), "w", encoding="utf-8") as f:
        json.dump(card, f, ensure_ascii=False, indent=2)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("path", nargs="+")
    p.add_argument("--check", action="store_true")
    p.add_argument("--check-data", action="store_true")
    p.add_argument("--tokens-median", type=int, metavar="N")
    args = p.parse_args()
    failed = False
    for path in args.path:
        pack = Pack(path if args.check_data else data_file(path))
        pack.check()
        if args.check:
            check_card(path, pack)
        elif not args.check_data and not pack.problems:
            write_card(path, pack, args.tokens_median)
        for text in pack.problems:
            print(text, file=sys.stderr)
        print("%s: %s" % (pack.path, pack.problems and "%d problem(s)" % len(pack.problems) or
                          " ".join("%s=%d" % kv for kv in pack.counts().items())))
        failed = failed or bool(pack.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
