/* The report of a run: one self-contained HTML file without scripts, from the run's files. */
#ifndef KVG_RESULT_REPORT_H
#define KVG_RESULT_REPORT_H

#include "base/err.h"
#include "base/text.h"

/* Writes <run_dir>/report.html; the plots that are in <run_dir>/plots are put in. */
int kvg_report_make(const char *run_dir, struct kvg_err *err);

/* Appends s with & < > " ' escaped; control characters become spaces. */
void kvg_html_text(struct kvg_str *out, const char *s);
/* Appends an SVG file's root element with every id and reference to one prefixed, so that several
 * fit into one page; appends nothing when there is none. */
void kvg_html_svg(struct kvg_str *out, const char *svg, const char *prefix);

#endif
