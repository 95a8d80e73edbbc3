/* rig.h -- requests to both APIs over the service in memory, as the server would put them. */
#ifndef QD_TESTS_UNIT_API_RIG_H
#define QD_TESTS_UNIT_API_RIG_H

#include "tests/unit/api/fake_backend.h"

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define RIG_REQUEST_ID "11111111-2222-4333-8444-555555555555"

/* One request. */
typedef struct ask {
    const char *method; /* NULL: POST with a body, else GET */
    const char *target; /* with query; of Qianfan: the name of an action, or a path */
    const char *body;   /* NULL: none */
    size_t body_bytes;  /* 0: up to the NUL */
    const char *key;    /* NULL: "acme"; "": no Authorization; else sk-KEY, or ak-KEY and its signature */
    const char *lang;   /* Accept-Language */
    const char *repeat_key;
    const char *authorization; /* instead of what key makes */
    uint64_t later_ms;         /* when it arrives, after FAKE_NOW_MS, when it was signed */
} ask;

typedef struct answer {
    int status;
    json_t *body;
    qd_http_reply reply;
} answer;

/* The answer to a request; sets the zone to Asia/Shanghai. Fails the test where a reply is not JSON. */
answer ask_of(fake *f, const ask *a);
void answer_done(answer *a);

bool ask_is_qianfan(const ask *a);

/* A member by path: "output.jobs.0.job_id"; NULL: none. */
const json_t *at(const json_t *v, const char *path);
const char *text_at(const answer *a, const char *path); /* "" where there is none */
/* The answer's code, or "" at success. */
const char *code_of(const answer *a);

/* Asks, expects a success and gives the answer; the other expects an error. */
answer good(fake *f, const ask *a);
void refused(fake *f, const ask *a, int status, const char *code);

/* The request as a line of documentation: method, target, body, headers that matter. */
void ask_show(const ask *a, qd_buf *ret);

fake *fake_new(void);
void fake_free(fake *f);

#endif
