#include "base/options.h"

#include <stdio.h>
#include <string.h>

static int usage_error(const qd_options *o, const char *what, const char *arg)
{
    (void)fprintf(stderr, "%s: %s %s; %s --help\n", o->def->program, what, arg, o->def->program);
    return 2;
}

static int print_page(const qd_conf_def *def)
{
    qd_buf page = {0};
    qd_conf_page(def, &page);
    int bad = page.failed || fputs(page.data, stdout) < 0;
    qd_buf_done(&page);
    return bad;
}

int qd_options_parse(qd_options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], **value = NULL;
        if (strcmp(arg, "--config") == 0) value = &o->config;
        if (o->own != NULL && strcmp(arg, o->own) == 0) value = &o->own_value;
        if (strcmp(arg, "--set") == 0) {
            if (o->n_settings == QD_OPTIONS_SETTINGS_MAX) return usage_error(o, "too many", arg);
            value = &o->settings[o->n_settings++];
        }
        if (value != NULL) {
            if (++i == argc) return usage_error(o, "a value is missing after", arg);
            *value = argv[i];
        } else if (strcmp(arg, "--check") == 0) {
            o->check = true;
        } else if (strcmp(arg, "--version") == 0) {
            return printf("%s %s\n", o->def->program, o->version) < 0;
        } else if (strcmp(arg, "--help") == 0) {
            return fputs(o->usage, stdout) < 0;
        } else if (strcmp(arg, "--config-reference") == 0) {
            return print_page(o->def);
        } else {
            return usage_error(o, "unknown option", arg);
        }
    }
    return -1;
}

qd_code qd_options_load(const qd_options *o, qd_arena *arena, void *target, qd_err *err)
{
    return qd_conf_load(o->def, o->config, o->settings, o->n_settings, arena, target, err);
}
