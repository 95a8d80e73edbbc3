#include "cli/args.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

qd_code qd_args_bytes(const char *text, uint64_t *ret, qd_err *err)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},
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
    char *end = NULL;
    errno = 0;
    double v = isdigit((unsigned char)text[0]) ? strtod(text, &end) : -1;
    if (v < 0 || errno != 0 || end == NULL || end == text)
        return qd_fail(err, QD_E_USAGE, "\"%s\": expected a size such as 192M, 5GB or 1.5GiB", text);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcasecmp(end, units[i].unit) == 0) {
            if (v * units[i].factor >= 9e18) return qd_fail(err, QD_E_USAGE, "\"%s\": the size is too large", text);
            *ret = (uint64_t)(v * units[i].factor);
            return QD_OK;
        }
    return qd_fail(err, QD_E_USAGE, "\"%s\": expected a size such as 192M, 5GB or 1.5GiB", text);
}

static qd_code set_value(const qd_opt *o, const char *value, qd_err *err)
{
    char *end = NULL;
    switch (o->kind) {
    case QD_OPT_FLAG:
        *(bool *)o->target = true;
        return QD_OK;
    case QD_OPT_TEXT:
        *(const char **)o->target = value;
        return QD_OK;
    case QD_OPT_BYTES:
        return qd_args_bytes(value, o->target, err);
    case QD_OPT_LIST: {
        qd_arg_list *l = o->target;
        if (l->n == QD_ARG_LIST_MAX)
            return qd_fail(err, QD_E_USAGE, "%s: given more than %d times", o->name, QD_ARG_LIST_MAX);
        l->items[l->n++] = value;
        return QD_OK;
    }
    case QD_OPT_COUNT:
        errno = 0;
        *(uint64_t *)o->target = strtoull(value, &end, 10);
        if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0)
            return qd_fail(err, QD_E_USAGE, "%s: expected a whole number, found \"%s\"", o->name, value);
        return QD_OK;
    }
    return QD_OK;
}

static const qd_opt *find(const qd_opt *opts, uint32_t n_opts, const char *arg, size_t len)
{
    for (uint32_t i = 0; i < n_opts; i++) {
        if (strlen(opts[i].name) == len && strncmp(opts[i].name, arg, len) == 0) return &opts[i];
        if (opts[i].alias != NULL && strlen(opts[i].alias) == len && strncmp(opts[i].alias, arg, len) == 0)
            return &opts[i];
    }
    return NULL;
}

qd_code qd_args_parse(int argc, char **argv, const qd_opt *opts, uint32_t n_opts, uint32_t min_rest, uint32_t max_rest,
                      qd_arg_list *ret_rest, qd_err *err)
{
    bool only_rest = false;
    ret_rest->n = 0;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_rest || arg[0] != '-' || arg[1] == '\0') {
            if (ret_rest->n == max_rest)
                return qd_fail(err, QD_E_USAGE, "%s: unexpected argument \"%s\"", argv[0], arg);
            ret_rest->items[ret_rest->n++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_rest = true;
            continue;
        }
        const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
        const qd_opt *o = find(opts, n_opts, arg, eq != NULL ? (size_t)(eq - arg) : strlen(arg));
        if (o == NULL)
            return qd_fail(err, QD_E_USAGE, "%s: unknown option %s; see quantctl %s --help", argv[0], arg, argv[0]);
        const char *value = eq != NULL ? eq + 1 : NULL;
        if (o->kind == QD_OPT_FLAG && value != NULL)
            return qd_fail(err, QD_E_USAGE, "%s: %s takes no value", argv[0], o->name);
        if (o->kind != QD_OPT_FLAG && value == NULL) {
            if (i + 1 >= argc) return qd_fail(err, QD_E_USAGE, "%s: %s needs a value", argv[0], o->name);
            value = argv[++i];
        }
        qd_code rc = set_value(o, value, err);
        if (rc != QD_OK) return rc;
    }
    if (ret_rest->n < min_rest)
        return qd_fail(err, QD_E_USAGE, "%s: an argument is missing; see quantctl %s --help", argv[0], argv[0]);
    return QD_OK;
}
