#include "cli/args.h"

#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
        return qd_units_bytes(value, o->target, err);
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
