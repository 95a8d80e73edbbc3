#include "gateway/times.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    YEAR_MAX = 9999
};

void qd_time_show(uint64_t ms, qd_time_form form, char ret[QD_TIME_BYTES])
{
    const uint64_t ms_max = UINT64_C(253402214400000); /* so that the year has four digits in every zone */
    time_t s = (time_t)((ms < ms_max ? ms : ms_max) / 1000);
    struct tm tm = {0};
    (void)(form == QD_TIME_CLOCK ? gmtime_r(&s, &tm) : localtime_r(&s, &tm));
    size_t n = 0;
    switch (form) { /* each a literal of its own, so that the compiler reads the format */
    case QD_TIME_PLAIN:
        n = strftime(ret, QD_TIME_BYTES, "%Y-%m-%d %H:%M:%S", &tm);
        break;
    case QD_TIME_ISO:
        n = strftime(ret, QD_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
        break;
    case QD_TIME_MINUTES:
        n = strftime(ret, QD_TIME_BYTES, "%Y%m%d%H%M", &tm);
        break;
    case QD_TIME_CLOCK:
        n = strftime(ret, QD_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
        break;
    }
    if (form != QD_TIME_ISO) return;
    long minutes = tm.tm_gmtoff / 60;
    long away = minutes < 0 ? -minutes : minutes;
    (void)snprintf(ret + n, QD_TIME_BYTES - n, "%c%02ld:%02ld", minutes < 0 ? '-' : '+', away / 60 % 24, away % 60);
}

/* Takes exactly n digits at *s. */
static bool digits(const char **s, int n, int *ret)
{
    int v = 0;
    for (int i = 0; i < n; i++, (*s)++) {
        if (**s < '0' || **s > '9') return false;
        v = v * 10 + (**s - '0');
    }
    *ret = v;
    return true;
}

static bool one(const char **s, const char *any_of)
{
    if (**s == '\0' || strchr(any_of, **s) == NULL) return false;
    (*s)++;
    return true;
}

static bool read_date(const char **s, struct tm *tm)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int y = 0, m = 0, d = 0;
    if (!digits(s, 4, &y) || !one(s, "-") || !digits(s, 2, &m) || !one(s, "-") || !digits(s, 2, &d)) return false;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if (y < 1 || y > YEAR_MAX || m < 1 || m > 12 || d < 1 || d > days[m - 1] + (m == 2 && leap)) return false;
    tm->tm_year = y - 1900;
    tm->tm_mon = m - 1;
    tm->tm_mday = d;
    return true;
}

/* hh:mm[:ss[.fraction]]; *ret_ms: milliseconds of the fraction, *ret_unit_ms: what the text leaves open. */
static bool read_clock(const char **s, struct tm *tm, int *ret_ms, int64_t *ret_unit_ms)
{
    *ret_unit_ms = 60000;
    if (!digits(s, 2, &tm->tm_hour) || !one(s, ":") || !digits(s, 2, &tm->tm_min)) return false;
    if (one(s, ":")) {
        *ret_unit_ms = 1000;
        if (!digits(s, 2, &tm->tm_sec)) return false;
        if (one(s, ".,")) {
            int n = 0;
            for (int scale = 100; **s >= '0' && **s <= '9'; scale /= 10, n++, (*s)++) *ret_ms += (**s - '0') * scale;
            *ret_unit_ms = 1;
            if (n == 0 || n > 9) return false;
        }
    }
    return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

/* *ret_local stays true where no zone is given. */
static bool read_zone(const char **s, bool *ret_local, int *ret_minutes)
{
    int h = 0, m = 0;
    if (**s == '\0') return true;
    *ret_local = false;
    if (one(s, "Zz")) return true;
    int sign = **s == '-' ? -1 : 1;
    if (!one(s, "+- ") || !digits(s, 2, &h)) return false;
    (void)one(s, ":");
    if (!digits(s, 2, &m) || h > 23 || m > 59) return false;
    *ret_minutes = sign * (h * 60 + m);
    return true;
}

bool qd_time_read(const char *text, qd_time_span *ret)
{
    struct tm tm = {.tm_isdst = -1};
    int64_t unit_ms = 0;
    int ms = 0, minutes = 0;
    bool local = true;
    if (!read_date(&text, &tm)) return false;
    bool whole_day = *text == '\0';
    if (!whole_day &&
        (!one(&text, "Tt +") || !read_clock(&text, &tm, &ms, &unit_ms) || !read_zone(&text, &local, &minutes)))
        return false;
    if (*text != '\0') return false;
    struct tm next = tm;
    next.tm_mday++; /* a day may have 23 or 25 hours */
    int64_t first = (int64_t)(local ? mktime(&tm) : timegm(&tm)) * 1000 - (int64_t)minutes * 60000 + ms;
    int64_t last = whole_day ? (int64_t)mktime(&next) * 1000 - 1 : first + unit_ms - 1;
    ret->first_ms = first < 1 ? 1 : (uint64_t)first;
    ret->last_ms = last < 1 ? 1 : (uint64_t)last;
    return true;
}
