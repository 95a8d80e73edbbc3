#include "proto/logline.h"

#include <string.h>

void qd_log_when(uint64_t time_ms, char ret[QD_LOG_WHEN_BYTES])
{
    time_t s = (time_t)(time_ms / 1000);
    struct tm t;
    if (localtime_r(&s, &t) == NULL || strftime(ret, QD_LOG_WHEN_BYTES, "%Y-%m-%d %H:%M:%S", &t) == 0) ret[0] = '\0';
}

void qd_log_line_show(qd_log_second *second, uint64_t time_ms, Quantd__LogLevel level, const char *text, qd_buf *ret)
{
    time_t s = (time_t)(time_ms / 1000);
    if (s != second->s || second->when[0] == '\0') qd_log_when(time_ms, second->when);
    second->s = s;
    const char *parts[] = {second->when, " - ", qd_log_line_level(level), " - ", text};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) qd_buf_add(ret, parts[i], strlen(parts[i]));
}

size_t qd_log_place_take(qd_log_place *place, const qd_event_batch *b)
{
    if (b->epoch != place->epoch) *place = (qd_log_place){.epoch = b->epoch};
    uint64_t end = b->first_line + b->n_lines, known = place->next_line;
    if (end > known) place->next_line = end;
    return known <= b->first_line ? 0 : known < end ? (size_t)(known - b->first_line) : b->n_lines;
}

const char *qd_log_line_level(Quantd__LogLevel l)
{
    static const char *const names[] = {"INFO", "DEBUG", "INFO", "WARN", "ERROR"};
    return (unsigned)l < sizeof names / sizeof names[0] ? names[l] : names[0];
}

bool qd_log_is_marker(const char *text)
{
    for (const char *p = text; (p = strstr(p, "##")) != NULL; p++) {
        size_t n = strspn(p + 2, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
        if (n > 0 && strncmp(p + 2 + n, "##", 2) == 0) return true;
    }
    return false;
}
