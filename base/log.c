#include "base/log.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_BYTES = 2048,
    BURST_S = 2
};

const char *qd_log_level_name(qd_log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return (unsigned)level < sizeof names / sizeof names[0] ? names[level] : "unknown";
}

void qd_log_set(qd_log *l, qd_log_level level, uint32_t lines_per_s)
{
    if (lines_per_s != l->lines_per_s) l->tokens_milli = (uint64_t)lines_per_s * BURST_S * 1000;
    l->level = level;
    l->lines_per_s = lines_per_s;
}

void qd_log_begin(qd_log *l, int fd, qd_log_level level, uint32_t lines_per_s)
{
    const char *journal = getenv("JOURNAL_STREAM");
    *l = (qd_log){.fd = fd, .prefix = journal != NULL && journal[0] != '\0', .refilled_ms = qd_mono_ms()};
    qd_log_set(l, level, lines_per_s);
}

void qd_log_field(qd_log *l, const char *key, const char *value)
{
    uint32_t i = 0;
    while (i < l->n_fields && strcmp(l->fields[i].key, key) != 0) i++;
    if (value == NULL) {
        if (i == l->n_fields) return;
        memmove(&l->fields[i], &l->fields[i + 1], (l->n_fields - i - 1) * sizeof l->fields[0]);
        l->n_fields--;
        return;
    }
    if (i == QD_LOG_FIELDS_MAX) return;
    if (i == l->n_fields) l->n_fields++;
    (void)snprintf(l->fields[i].key, sizeof l->fields[i].key, "%s", key);
    (void)snprintf(l->fields[i].value, sizeof l->fields[i].value, "%s", value);
}

static bool may_write(qd_log *l)
{
    if (l->lines_per_s == 0) return true;
    uint64_t now = qd_mono_ms(), most = (uint64_t)l->lines_per_s * BURST_S * 1000;
    uint64_t passed = now - l->refilled_ms;
    l->tokens_milli = passed > UINT64_C(1000) * BURST_S || l->tokens_milli + passed * l->lines_per_s > most
                          ? most
                          : l->tokens_milli + passed * l->lines_per_s;
    l->refilled_ms = now;
    if (l->tokens_milli < 1000) {
        l->suppressed++;
        return false;
    }
    l->tokens_milli -= 1000;
    return true;
}

/* Appends what fits; the line always keeps room for its newline. */
static void add(char *line, size_t *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add(char *line, size_t *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + *n, LINE_BYTES - 1 - *n, fmt, ap);
    va_end(ap);
    if (more < 0) return;
    *n += (size_t)more;
    if (*n > LINE_BYTES - 2) *n = LINE_BYTES - 2;
}

static void add_value(char *line, size_t *n, const char *value)
{
    if (value[0] != '\0' && strpbrk(value, " =\"\\") == NULL) {
        add(line, n, "%s", value);
        return;
    }
    add(line, n, "\"");
    for (const char *s = value; *s != '\0'; s++) add(line, n, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    add(line, n, "\"");
}

static void head(const qd_log *l, qd_log_level level, char *line, size_t *n)
{
    static const int syslog[] = {3, 4, 6, 7};
    if (l->prefix) {
        add(line, n, "<%d>", syslog[level]);
        return;
    }
    uint64_t ms = qd_unix_ms();
    time_t s = (time_t)(ms / 1000);
    struct tm t;
    char text[32] = "";
    if (gmtime_r(&s, &t) != NULL) (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &t);
    add(line, n, "%s.%03uZ %s ", text, (unsigned)(ms % 1000), qd_log_level_name(level));
}

static void end(qd_log *l, char *line, size_t n)
{
    for (uint32_t i = 0; i < l->n_fields; i++) {
        add(line, &n, " %s=", l->fields[i].key);
        add_value(line, &n, l->fields[i].value);
    }
    for (size_t i = 0; i < n; i++) /* one event, one line: texts come from hostile files */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[n++] = '\n';
    ssize_t ignored = write(l->fd, line, n); /* there is nobody to tell */
    (void)ignored;
}

void qd_log_say(qd_log *l, qd_log_level level, const char *fmt, ...)
{
    char line[LINE_BYTES];
    size_t n = 0;
    if (level > l->level || !may_write(l)) return;
    if (l->suppressed > 0) {
        head(l, QD_LOG_WARN, line, &n);
        add(line, &n, "%" PRIu64 " lines left out: more than %u a second", l->suppressed, l->lines_per_s);
        l->suppressed = 0;
        end(l, line, n);
        n = 0;
    }
    head(l, level, line, &n);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + n, LINE_BYTES - 1 - n, fmt, ap);
    va_end(ap);
    if (more > 0) n = n + (size_t)more < LINE_BYTES - 2 ? n + (size_t)more : LINE_BYTES - 2;
    end(l, line, n);
}

void qd_log_err(qd_log *l, qd_log_level level, const char *what, const qd_err *err)
{
    if (l->level >= QD_LOG_DEBUG && err->file != NULL)
        qd_log_say(l, level, "%s: %s code=%s at=%s:%d", what, err->msg, qd_code_name(err->code), err->file, err->line);
    else
        qd_log_say(l, level, "%s: %s code=%s", what, err->msg, qd_code_name(err->code));
}
