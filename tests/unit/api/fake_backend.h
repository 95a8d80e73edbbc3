/* fake_backend.h -- the service in memory: two tenants, models and jobs of every kind. One thread at a time. */
#ifndef QD_TESTS_UNIT_API_FAKE_BACKEND_H
#define QD_TESTS_UNIT_API_FAKE_BACKEND_H

#include "gateway/api.h"

enum {
    FAKE_MODELS_MAX = 16,
    FAKE_TEMPLATES_MAX = 8,
    FAKE_JOBS_MAX = 64,
    FAKE_FILES_MAX = 16,
    FAKE_NOW_S = 1775908800 /* 2026-04-11T12:00:00Z, 20:00 in Shanghai */
};
#define FAKE_NOW_MS (UINT64_C(1000) * FAKE_NOW_S)

/* Tenant acme: keys sk-acme, sk-read (read only), sk-off (disabled), sk-some (template nvfp4-w4a16 only), sk-busy (over
 * its rate). Tenant other: sk-other. Signing keys are named alike with "ak-", and their secret is "secret of ak-...".
 */
typedef struct fake_job {
    qd_job_record *rec;
    char repeat_key[160], repeat_body[QD_NEW_JOB_DIGEST_BYTES];
    uint64_t n_lines;
} fake_job;

typedef struct fake {
    qd_backend backend;
    qd_api_env env;
    qd_arena arena;
    qd_model models[FAKE_MODELS_MAX];
    qd_template templates[FAKE_TEMPLATES_MAX];
    fake_job jobs[FAKE_JOBS_MAX];
    qd_file_meta *files[FAKE_FILES_MAX];
    size_t n_models, n_templates, n_jobs, n_files;
    uint64_t random;
    const char *fail_op; /* this operation fails with fail_code */
    qd_code fail_code;
    size_t not_for_the_wire; /* creations whose record the wire refuses */
    size_t lent;             /* models and templates that were not dropped */
} fake;

/* Aborts when something cannot be made. template_dir: deploy/templates. */
void fake_begin(fake *f, const char *template_dir);
void fake_done(fake *f);
/* Jobs and files as they were after fake_begin(). */
void fake_again(fake *f);

/* A job as given; the record is the fake's. state: started and ended times are set as they belong. */
qd_job_record *fake_job_add(fake *f, const char *id, const char *tenant, Quantd__ApiOrigin origin, qd_job_state state,
                            uint64_t created_ms);
/* The job of that id. */
qd_job_record *fake_job_of(fake *f, const char *id);

/* Ids that fake_begin() made: one job a state (its name in lower case), and one of the other tenant. */
#define FAKE_BAILIAN_JOB       "quant-202604111200-000" /* + digit of the state */
#define FAKE_BAILIAN_JOB_OTHER "quant-202604111200-0bad"
#define FAKE_QIANFAN_JOB       "amva-00000000000" /* + digit of the state */
#define FAKE_QIANFAN_JOB_OTHER "amva-00000000bad0"
#define FAKE_FILE              "file-0123456789abcdef0123456789abcdef"
#define FAKE_FILE_OTHER        "file-00000000000000000000000000000bad"

extern const qd_backend_ops fake_ops; /* what fake_seed.c fills; ctx: a fake */

#endif
