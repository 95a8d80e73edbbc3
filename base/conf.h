/* conf.h -- a program's settings: one table says each key's type, range, default and meaning; it parses `key = value`
 * files, checks, and prints its own reference page.
 *
 * A file: one setting a line, '#' begins a comment, the value runs to the end of the line. Unknown keys, keys given
 * twice and values out of range are errors that name file, line, key and what is allowed. Secrets are never values: a
 * key names a file, whose mode is checked. */
#ifndef QD_BASE_CONF_H
#define QD_BASE_CONF_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qd_conf_type {
    QD_CONF_TEXT,   /* target const char * */
    QD_CONF_CHOICE, /* target uint64_t: index among choices ("error|warn|info") */
    QD_CONF_BOOL,   /* target bool: true, false */
    QD_CONF_COUNT,  /* target uint64_t, min..max */
    QD_CONF_BYTES,  /* target uint64_t, min..max */
    QD_CONF_MS,     /* target uint64_t, min..max */
    QD_CONF_PATH,   /* target const char *: absolute, or empty */
    QD_CONF_SECRET  /* as PATH: a regular file of root's or this user's, closed to others, not writable by the group */
} qd_conf_type;

typedef struct qd_conf_key {
    const char *name;
    qd_conf_type type;
    size_t offset; /* of the target in the program's struct */
    const char *dflt;
    uint64_t min, max;   /* max 0: no limit */
    const char *choices; /* CHOICE */
    bool reloadable;     /* taken by a reload; others need a restart */
    const char *help;    /* one sentence or more, plain ASCII */
} qd_conf_key;

typedef struct qd_conf_def {
    const char *program;
    const qd_conf_key *keys;
    size_t n_keys;
    size_t bytes; /* of the program's struct */
} qd_conf_def;

/* Fills *target (def->bytes) with the defaults, then the text, then the settings ("key=value"), each of which may
 * override the text. Texts live in arena. what: names the text in errors. text NULL: none. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_conf_parse(const qd_conf_def *def, const char *text, size_t len, const char *what,
                                    const char *const *settings, size_t n_settings, qd_arena *arena, void *target,
                                    qd_err *err);
/* The same from a file (path NULL: no file); then checks the secrets' files. */
QD_MUST_CHECK qd_code qd_conf_load(const qd_conf_def *def, const char *path, const char *const *settings,
                                   size_t n_settings, qd_arena *arena, void *target, qd_err *err);
/* After a reload: copies the reloadable settings of fresh to target and appends to ret_stale the names of the others
 * that differ, separated by ", ". fresh's arena must live as long as target. */
void qd_conf_take(const qd_conf_def *def, void *target, const void *fresh, qd_buf *ret_stale);
/* Markdown: every key with type, range, default, and what it is for. */
void qd_conf_page(const qd_conf_def *def, qd_buf *ret);
/* A time zone that this machine knows. name: the setting's. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_conf_check_zone(const char *name, const char *zone, qd_err *err);
QD_MUST_CHECK qd_code qd_conf_check_secret(const char *path, qd_err *err);

#endif
