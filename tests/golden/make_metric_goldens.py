#!/usr/bin/env python3
"""Writes metrics.tsv: sentence pairs of our own and their scores by sacreBLEU (pip install
sacrebleu==2.6.0). Usage: make_metric_goldens.py > metrics.tsv
Columns: name, hypothesis, reference (escaped: \\\\ \\t \\n), BLEU (13a, exp smoothing, effective
order), chrF2, chrF2++, and BLEU's sys_len ref_len correct1..4 total1..4. The row "corpus" holds the
scores of all rows together (BLEU without effective order)."""
import sys
from sacrebleu.metrics import BLEU, CHRF

PAIRS = [
    ("identical", "The ferry leaves at 6:45 from the north pier.",
     "The ferry leaves at 6:45 from the north pier."),
    ("one-word", "The ferry leaves at 6:45 from the south pier.",
     "The ferry leaves at 6:45 from the north pier."),
    ("reordered", "From the north pier the ferry leaves at 6:45.",
     "The ferry leaves at 6:45 from the north pier."),
    ("short-hyp", "The ferry leaves.", "The ferry leaves at 6:45 from the north pier."),
    ("long-hyp", "The ferry leaves, as every Monday, at 6:45 sharp from the old north pier of "
     "Velmoor, weather permitting.", "The ferry leaves at 6:45 from the north pier."),
    ("nothing-common", "qqq zzz", "The ferry leaves."),
    ("empty-hyp", "", "The ferry leaves."),
    ("empty-ref", "The ferry leaves.", ""),
    ("both-empty", "", ""),
    ("blank-hyp", " \t ", "The ferry leaves."),
    ("one-token", "Ja.", "Ja."),
    ("one-letter", "a", "a"),
    ("two-letters", "ab", "ba"),
    ("spanish", "¿Dónde está la sala de calderas? Está detrás del taller, a 3,5 m.",
     "¿Dónde queda la sala de calderas? Está detrás del taller, a unos 3,5 m."),
    ("french", "L’atelier ouvre à 8 h 30 ; la chaudière, elle, reste éteinte jusqu’à midi.",
     "L'atelier ouvre à 8 h 30 ; la chaudière reste éteinte jusqu'à midi."),
    ("german", "Die Kesselwärterin prüft zuerst das Überdruckventil, dann die Füllstandsanzeige.",
     "Die Kesselwärterin prüft erst das Überdruckventil und dann die Füllstandsanzeige."),
    ("numbers", "Pay 1,250.50 EUR by 2031-04-09, not 1.250,50 EUR; call 4-5 days before.",
     "Pay 1,250.50 EUR by 2031-04-09 and not 1.250,5 EUR; call 4-6 days before."),
    ("stops", "Wait... what?! Well.., no.,.5 and 5.,.", "Wait... what? Well.. no ,.5 and 5 .,."),
    ("entities", "Tom &amp; Ada said &quot;x &lt; y&quot; &amp;lt; z",
     'Tom & Ada said "x < y" &lt; z'),
    ("skipped", "The <skipped>gate is closed", "The gate is closed"),
    ("newlines", "The well-\nkept garden\nis open", "The wellkept garden is open"),
    ("spaces", "a\u00a0b\u3000c\u202fd\u200be\ufefff", "a b c d\u200be\ufefff"),
    ("emoji", "Gate 4 \U0001F6A2 opens \U0001F600!", "Gate 4 \U0001F6A2 opened \U0001F600!"),
    ("combining", "cafe\u0301 menu", "caf\u00e9 menu"),
    ("parentheses", "(see (b)) 'quoted' -dash- [x]{y}|z~ a/b c\\d", "(see b) 'quoted' dash [x] {y}"),
    ("repeats", "the the the the the the the", "the cat is on the mat"),
    ("case", "THE FERRY LEAVES AT NOON TODAY", "The ferry leaves at noon today"),
    ("cjk", "渡轮六点四十五分开。", "渡轮在六点四十五分离开。"),
    ("cyrillic", "Паром отходит в 6:45 от северного причала.",
     "Паром уходит в 6:45 с северного причала."),
    ("zero-orders", "one two three four five", "five four three two one"),
]


def escape(s):
    return s.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def main():
    sentence, corpus = BLEU(effective_order=True), BLEU()
    chrf, chrfpp = CHRF(), CHRF(word_order=2)
    out = sys.stdout
    out.write("name\thyp\tref\tbleu\tchrf2\tchrf2pp\tbleu_stats\n")

    def row(name, hyp, ref, b, c, p):
        stats = [b.sys_len, b.ref_len] + list(b.counts) + list(b.totals)
        out.write("\t".join([name, escape(hyp), escape(ref), repr(float(b.score)),
                             repr(float(c.score)), repr(float(p.score)),
                             " ".join(str(int(v)) for v in stats)]) + "\n")

    for name, hyp, ref in PAIRS:
        row(name, hyp, ref, sentence.sentence_score(hyp, [ref]), chrf.sentence_score(hyp, [ref]),
            chrfpp.sentence_score(hyp, [ref]))
    hyps, refs = [p[1] for p in PAIRS], [[p[2] for p in PAIRS]]
    row("corpus", "", "", corpus.corpus_score(hyps, refs), chrf.corpus_score(hyps, refs),
        chrfpp.corpus_score(hyps, refs))


if __name__ == "__main__":
    main()
