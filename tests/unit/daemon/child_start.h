/* child_start.h -- what the job's process is told in tests: data-free. Include it after cmocka.h. */
#ifndef QD_TESTS_CHILD_START_H
#define QD_TESTS_CHILD_START_H

#include "proto/msg.h"

/* A start of a job in epoch 1; release with qd_msg_free(). */
static inline qd_child_start *child_start_make(const char *job_id, const char *staging, const char *model,
                                               const char *out, uint32_t threads)
{
    qd_err err = {0};
    qd_child_start *s = qd_child_start_new();
    assert_non_null(s);
    s->spec = qd_job_spec_new();
    s->spec->lane = qd_job_lane_new();
    s->epoch = 1;
    s->threads = threads;
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&s->job_id, job_id},
                 {&s->staging_path, staging},
                 {&s->device, "cpu"},
                 {&s->template_dirs, QD_TEST_SOURCE_DIR "/deploy/templates"},
                 {&s->spec->name, "n"},
                 {&s->spec->tenant, "t"},
                 {&s->spec->model_id, "m"},
                 {&s->spec->template_id, "nvfp4-w4a16"},
                 {&s->spec->source_path, model},
                 {&s->spec->output_path, out},
                 {&s->spec->lane->device_class, "cpu"},
                 {&s->spec->lane->numerics_id, "any"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(qd_text_set(texts[i].field, texts[i].value, &err), QD_OK);
    return s;
}

#endif
