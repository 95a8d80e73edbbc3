#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

typedef struct unit {
    const char *name;
    double factor;
} unit;

static qd_code parse(const char *text, const unit *units, size_t n_units, const char *expected, uint64_t *ret,
                     qd_err *err)
{
    char *end = NULL;
    errno = 0;
    double v = isdigit((unsigned char)text[0]) ? strtod(text, &end) : -1;
    if (v < 0 || errno != 0 || end == NULL || end == text)
        return qd_fail(err, QD_E_USAGE, "\"%s\": expected %s", text, expected);
    while (*end == ' ') end++;
    for (size_t i = 0; i < n_units; i++)
        if (strcasecmp(end, units[i].name) == 0) {
            if (v * units[i].factor >= 9e18) return qd_fail(err, QD_E_USAGE, "\"%s\": the number is too large", text);
            *ret = (uint64_t)(v * units[i].factor);
            return QD_OK;
        }
    return qd_fail(err, QD_E_USAGE, "\"%s\": expected %s", text, expected);
}

qd_code qd_units_bytes(const char *text, uint64_t *ret_bytes, qd_err *err)
{
    static const unit units[] = {{"", 1},
                                 {"B", 1},
                                 {"K", 1e3},
                                 {"KB", 1e3},
                                 {"M", 1e6},
                                 {"MB", 1e6},
                                 {"G", 1e9},
                                 {"GB", 1e9},
                                 {"T", 1e12},
                                 {"TB", 1e12},
                                 {"KiB", 1024},
                                 {"MiB", 1048576},
                                 {"GiB", 1073741824.0},
                                 {"TiB", 1099511627776.0}};
    return parse(text, units, sizeof units / sizeof units[0], "a size such as 192M, 5GB or 1.5GiB", ret_bytes, err);
}

qd_code qd_units_ms(const char *text, uint64_t *ret_ms, qd_err *err)
{
    static const unit units[] = {{"", 1}, {"ms", 1}, {"s", 1e3}, {"min", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}};
    return parse(text, units, sizeof units / sizeof units[0], "a span of time such as 700ms, 15s or 10min", ret_ms,
                 err);
}

qd_code qd_units_count(const char *text, uint64_t *ret, qd_err *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (end == NULL || *end != '\0' || errno != 0)
        return qd_fail(err, QD_E_USAGE, "\"%s\": expected a whole number", text);
    *ret = v;
    return QD_OK;
}
