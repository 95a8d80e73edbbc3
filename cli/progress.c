#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    WIDTH_DEFAULT = 80,
    BAR_MIN = 10,
    BAR_MAX = 40,
    LINE_EVERY_S = 5
};

void qd_progress_duration(double s, char *ret_text, size_t bytes)
{
    unsigned long t = s < 0 ? 0 : (unsigned long)(s + 0.5);
    if (s < 0)
        (void)snprintf(ret_text, bytes, "--");
    else if (s < 59.95)
        (void)snprintf(ret_text, bytes, "%.1f s", s);
    else if (t < 3600)
        (void)snprintf(ret_text, bytes, "%lu min %02lu s", t / 60, t % 60);
    else
        (void)snprintf(ret_text, bytes, "%lu h %02lu min", t / 3600, t % 3600 / 60);
}

void qd_progress_line(const qd_job_progress *p, unsigned width, qd_buf *out)
{
    char head[64], tail[128], layer[48] = "", rate[32] = "", eta[32];
    double part = p->total_bytes > 0 ? (double)p->done_bytes / (double)p->total_bytes : 1.0;
    qd_progress_duration(p->eta_s, eta, sizeof eta);
    if (p->n_layers > 0 && strcmp(p->phase, "verify") != 0)
        (void)snprintf(layer, sizeof layer, "  layer %d/%d", p->layer + 1, p->n_layers);
    (void)snprintf(head, sizeof head, "%-8s %5.1f %%", p->phase, part * 100);
    if (p->rate_bytes_s > 0) (void)snprintf(rate, sizeof rate, "  %.2f GB/s", p->rate_bytes_s * 1e-9);
    (void)snprintf(tail, sizeof tail, "%s%s  ETA %s", layer, rate, eta);
    size_t used = strlen(head) + strlen(tail) + 4;
    unsigned bar = width > used ? width - (unsigned)used : 0;
    if (bar > BAR_MAX) bar = BAR_MAX;
    size_t start = out->len;
    qd_buf_str(out, head);
    if (bar >= BAR_MIN) {
        unsigned full = (unsigned)(part * bar);
        qd_buf_str(out, " [");
        for (unsigned i = 0; i < bar; i++) qd_buf_str(out, i < full ? "=" : i == full ? ">" : " ");
        qd_buf_str(out, "]");
    }
    qd_buf_str(out, tail);
    /* A line that wraps would stay on the screen when it is redrawn. */
    if (width > 1 && !out->failed && out->len - start > width - 1) {
        out->len = start + width - 1;
        out->data[out->len] = '\0';
    }
}

void qd_progress_json(const qd_job_progress *p, qd_buf *out)
{
    qd_buf_printf(out,
                  "{\"event\":\"progress\",\"phase\":\"%s\",\"layer\":%d,\"layers\":%d,\"done_bytes\":%" PRIu64
                  ",\"total_bytes\":%" PRIu64 ",\"elapsed_s\":%.3f,\"rate_bytes_s\":%.0f,\"eta_s\":",
                  p->phase, p->layer + 1, p->n_layers, p->done_bytes, p->total_bytes, p->elapsed_s, p->rate_bytes_s);
    if (p->eta_s >= 0)
        qd_buf_printf(out, "%.3f}\n", p->eta_s);
    else
        qd_buf_str(out, "null}\n");
}

static unsigned terminal_width(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : WIDTH_DEFAULT;
}

static void clear_bar(qd_progress_view *v)
{
    if (v->drawn) (void)fputs("\r\033[K", stderr);
    v->drawn = false;
}

static void on_progress(void *ctx, const qd_job_progress *p)
{
    qd_progress_view *v = ctx;
    qd_buf_reset(&v->line);
    if (v->show == QD_SHOW_JSON) {
        qd_progress_json(p, &v->line);
        if (!v->line.failed) (void)fputs(v->line.data, stdout);
        (void)fflush(stdout);
        return;
    }
    if (v->show == QD_SHOW_LINES) { /* a line at each tenth, and every few seconds */
        int tenth = p->total_bytes > 0 ? (int)(p->done_bytes * 10 / p->total_bytes) : 10;
        bool fresh = v->last_phase == NULL || strcmp(v->last_phase, p->phase) != 0;
        if (!fresh && tenth == v->last_tenth && p->elapsed_s - v->last_s < LINE_EVERY_S) return;
        v->last_phase = p->phase;
        v->last_tenth = tenth;
        v->last_s = p->elapsed_s;
    }
    qd_progress_line(p, v->show == QD_SHOW_BAR ? (v->width != 0 ? v->width : terminal_width()) : 0, &v->line);
    if (v->line.failed) return;
    clear_bar(v);
    (void)fprintf(stderr, v->show == QD_SHOW_BAR ? "%s" : "%s\n", v->line.data);
    v->drawn = v->show == QD_SHOW_BAR;
    (void)fflush(stderr);
}

static void on_note(void *ctx, qd_note_level level, const char *text)
{
    qd_progress_view *v = ctx;
    if (v->show == QD_SHOW_JSON) {
        qd_buf_reset(&v->line);
        qd_buf_printf(&v->line, "{\"event\":\"%s\",\"message\":", level == QD_NOTE_WARN ? "warning" : "note");
        qd_buf_json_str(&v->line, text);
        qd_buf_str(&v->line, "}\n");
        if (!v->line.failed) (void)fputs(v->line.data, stdout);
        (void)fflush(stdout);
        return;
    }
    clear_bar(v);
    (void)fprintf(stderr, "quantctl: %s%s\n", level == QD_NOTE_WARN ? "warning: " : "", text);
}

void qd_progress_begin(qd_progress_view *v, bool json)
{
    *v = (qd_progress_view){.show = json                    ? QD_SHOW_JSON
                                    : isatty(STDERR_FILENO) ? QD_SHOW_BAR
                                                            : QD_SHOW_LINES,
                            .last_tenth = -1};
}

qd_job_events qd_progress_events(qd_progress_view *v)
{
    return (qd_job_events){.ctx = v, .progress = on_progress, .note = on_note};
}

void qd_progress_end(qd_progress_view *v)
{
    clear_bar(v);
    qd_buf_done(&v->line);
}
