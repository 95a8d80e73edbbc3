/* compress.h -- what both APIs ask of models and templates, and what they keep with a job. */
#ifndef QD_GATEWAY_COMPRESS_H
#define QD_GATEWAY_COMPRESS_H

#include "gateway/backend.h"

/* Names in qd_job_spec.api_fields. The first two are read by the backend's index as well. */
#define QD_FIELD_QUANT_SPEC   "quant_spec"   /* qd_template_spec() */
#define QD_FIELD_QUANT_METHOD "quant_method" /* qd_template_method() */
#define QD_FIELD_SHOWN        "shown"        /* names of the settings that users see, separated by ',' */
#define QD_FIELD_STRATEGY     "strategy"     /* Qianfan's config, as submitted */
#define QD_FIELD_WEIGHT       "weight"
#define QD_FIELD_SOURCE_ID    "source_model_id" /* Qianfan's ids, as submitted */
#define QD_FIELD_SET_ID       "model_set_id"

/* NULL: none such. */
const qd_model *qd_models_find(const qd_models *m, const char *id);
const qd_model *qd_models_find_qianfan(const qd_models *m, const char *qianfan_id);
const qd_template *qd_templates_find(const qd_templates *t, const char *id);

bool qd_template_fits(const qd_template *t, const char *base_model); /* one of its globs matches */
const char *qd_template_spec(const qd_template *t);                  /* "w4a16", "w4a4" */
const char *qd_template_method(const qd_template *t);                /* "rtn": the default of its parameter "method" */
/* 1 to 128 visible ASCII characters, as a header Idempotency-Key must be. */
bool qd_repeat_key_ok(const char *key);
bool qd_caller_may_use(const qd_caller *c, const char *template_id);

#endif
