/* error_cases.h -- for every row of both APIs' tables of errors: a request that provokes it. docs/api.md shows them. */
#ifndef QD_TESTS_UNIT_API_ERROR_CASES_H
#define QD_TESTS_UNIT_API_ERROR_CASES_H

#include "gateway/bailian.h"
#include "gateway/qianfan.h"
#include "tests/unit/api/rig.h"

typedef struct error_case {
    int row;
    const char *what; /* when it happens */
    ask ask;
    const char *args[QD_FILL_ARGS_MAX]; /* of the row's text */
    const char *fail_op;                /* of the backend, with fail_code */
    qd_code fail_code;
    const char *how; /* instead of the request, in the documentation */
    int refusal;     /* 1 + qd_refusal: what the server meets */
    int upload;      /* 1: an upload without files; 2: of one file that fails with fail_code */
} error_case;

const error_case *bailian_cases(size_t *ret_n);
const error_case *qianfan_cases(size_t *ret_n);

#endif
