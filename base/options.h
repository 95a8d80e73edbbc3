/* options.h -- the command line of a program that is set up by a table of settings (conf.h). */
#ifndef QD_BASE_OPTIONS_H
#define QD_BASE_OPTIONS_H

#include "base/conf.h"

enum {
    QD_OPTIONS_SETTINGS_MAX = 64
};

typedef struct qd_options {
    /* Given. */
    const qd_conf_def *def;
    const char *version, *usage;
    const char *own; /* the name of one more option that takes a value ("--instance"), or NULL */
    /* Found: all point into argv. */
    const char *config, *own_value; /* NULL: not given */
    const char *settings[QD_OPTIONS_SETTINGS_MAX];
    size_t n_settings;
    bool check; /* check the settings and stop */
} qd_options;

/* --config FILE, --set KEY=VALUE, --check, --version, --help, --config-reference, and the program's own. Answers by
 * itself, on stdout, what asks for a text, and on stderr what is wrong. Returns the exit code, or -1: go on. */
int qd_options_parse(qd_options *o, int argc, char **argv);
/* The settings that they ask for. */
QD_MUST_CHECK qd_code qd_options_load(const qd_options *o, qd_arena *arena, void *target, qd_err *err);

#endif
