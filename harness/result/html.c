/* Escaping for HTML and putting SVG pictures into a page. Must not know results. */
#include "result/report.h"

#include <string.h>

void kvg_html_text(struct kvg_str *out, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '&':
            kvg_str_add(out, "&amp;");
            break;
        case '<':
            kvg_str_add(out, "&lt;");
            break;
        case '>':
            kvg_str_add(out, "&gt;");
            break;
        case '"':
            kvg_str_add(out, "&quot;");
            break;
        case '\'':
            kvg_str_add(out, "&#39;");
            break;
        default:
            kvg_str_addc(out, (unsigned char)*s < ' ' && *s != '\n' ? ' ' : *s);
        }
}

/* What comes before a name that must be made unique. */
static const char *const id_starts[] = {" id=\"", " id='", "href=\"#", "href='#", "url(#"};

void kvg_html_svg(struct kvg_str *out, const char *svg, const char *prefix)
{
    const char *p = strstr(svg, "<svg");
    if (!p)
        return;
    while (*p) {
        size_t i = 0, n = sizeof id_starts / sizeof id_starts[0];
        while (i < n && strncmp(p, id_starts[i], strlen(id_starts[i])))
            i++;
        if (i == n) {
            kvg_str_addc(out, *p++);
            continue;
        }
        kvg_str_add(out, id_starts[i]);
        kvg_str_add(out, prefix);
        p += strlen(id_starts[i]);
    }
}
