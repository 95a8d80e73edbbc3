/* args.h -- a table of options, parsed: `--name VALUE`, `--name=VALUE`, `-o VALUE`, flags, and positional arguments. */
#ifndef QD_CLI_ARGS_H
#define QD_CLI_ARGS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QD_ARG_LIST_MAX = 64
};

typedef struct qd_arg_list {
    const char *items[QD_ARG_LIST_MAX];
    uint32_t n;
} qd_arg_list;

typedef enum qd_opt_kind {
    QD_OPT_FLAG,  /* target: bool */
    QD_OPT_TEXT,  /* target: const char * */
    QD_OPT_LIST,  /* target: qd_arg_list; may be repeated */
    QD_OPT_COUNT, /* target: uint64_t, a whole number */
    QD_OPT_BYTES  /* target: uint64_t, a size such as 192M, 5GB, 1.5GiB */
} qd_opt_kind;

typedef struct qd_opt {
    const char *name;  /* with its dashes: "--threads" */
    const char *alias; /* "-o", or NULL */
    qd_opt_kind kind;
    void *target;
} qd_opt;

/* Fills targets; strings point into argv. `--` ends the options. Positional arguments: at least min_rest, at most
 * max_rest, in ret_rest. Errors: QD_E_USAGE with one sentence. */
QD_MUST_CHECK qd_code qd_args_parse(int argc, char **argv, const qd_opt *opts, uint32_t n_opts, uint32_t min_rest,
                                    uint32_t max_rest, qd_arg_list *ret_rest, qd_err *err);

#endif
