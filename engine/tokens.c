#include "engine/tokens.h"

#include "base/mem.h"
#include "base/path.h"
#include "engine/method.h"

#include <stdlib.h>
#include <string.h>

enum {
    SAMPLES_DEFAULT = 128,
    LENGTH_DEFAULT = 512,
    HELD_SHARE = 8 /* at most this part is held back, where there are not more samples than asked for */
};

static void warn(void *user, const char *sentence)
{
    const qd_job_events *events = user;
    if (events != NULL && events->note != NULL) events->note(events->ctx, QD_NOTE_WARN, sentence);
}

/* What the command line says, else the template's setting, else the default. */
static uint32_t count(uint64_t given, const qd_values *v, const char *name, uint32_t dflt)
{
    const char *set = qd_values_get(v, name);
    uint64_t n = given != 0 ? given : set != NULL ? strtoull(set, NULL, 10) : dflt;
    return (uint32_t)qd_min_u64(n, UINT32_MAX);
}

static bool only_ids(const char *const *paths, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!qd_str_ends(paths[i], ".safetensors")) return false;
    return true;
}

static qd_code hash_of(const qd_job_opts *opts, qd_job_tokens *t, qd_err *err)
{
    qd_hasher *h = qd_hasher_new();
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a checksum");
    uint64_t n = t->data.n_samples, len = t->data.len;
    char numerics[QD_FORWARD_NUMERICS_BYTES] = "";
    qd_forward_numerics(opts->ops != NULL ? opts->ops : qd_ops_calibration(false), numerics);
    qd_hasher_add(h, numerics, strlen(numerics));
    qd_hasher_add(h, &len, sizeof len);
    qd_hasher_add(h, t->data.ids, n * len * sizeof *t->data.ids);
    t->hash = qd_hasher_end(h);
    qd_hasher_free(h);
    return QD_OK;
}

qd_code qd_job_tokens_load(const qd_job_opts *opts, const qd_ckpt *c, const qd_job_events *events, qd_cancel *cancel,
                           qd_job_tokens *ret, qd_err *err)
{
    qd_model_config m = {0};
    qd_arena arena = {0};
    qd_tokenizer *tokenizer = NULL;
    qd_chat chat = {0};
    qd_method method = {0};
    char *built_in = NULL;
    const char *const *paths = opts->calib_files;
    uint32_t n_paths = opts->n_calib_files;
    qd_code rc = QD_OK;
    QD_TRY(qd_method_of(opts, &method, err));
    QD_TRY(qd_model_config_read(&c->config, c->dir, &arena, &m, err));
    if (n_paths == 0) {
        built_in = qd_dataset_default_path();
        if (built_in == NULL) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
            goto out;
        }
        paths = (const char *const *)&built_in;
        n_paths = 1;
    }
    qd_dataset_options o = {
        .paths = paths,
        .n_paths = n_paths,
        .n_samples = count(opts->calib_samples, opts->values, "calib_samples", SAMPLES_DEFAULT),
        .len = count(opts->calib_seq_len, opts->values, "calib_seq_len", LENGTH_DEFAULT),
        .pack = true,
        .n_ids = (uint32_t)m.vocab,
        .warn = warn,
        .warn_user = (void *)(uintptr_t)events,
        .cancel = cancel,
    };
    if (only_ids(paths, n_paths)) { /* taken as they are, unless the command line says otherwise */
        o.n_samples = (uint32_t)opts->calib_samples;
        o.len = (uint32_t)opts->calib_seq_len;
    } else {
        QD_TRY(qd_tokenizer_load(c->dir, &tokenizer, err));
        QD_TRY(qd_chat_load(c->dir, &chat, err));
        if (chat.unknown)
            warn(o.warn_user, "the model's chat template is not one that is known: messages are joined as they are");
    }
    uint32_t wanted = o.n_samples;
    if (o.n_samples != 0)
        o.n_samples += method.gate_samples; /* beside the ones for calibration, where there are more */
    QD_TRY(qd_dataset_load(tokenizer, &chat, &o, &ret->data, err));
    uint32_t spare = ret->data.n_samples / HELD_SHARE;
    if (wanted != 0 && ret->data.n_samples > wanted) spare = (uint32_t)qd_max_u64(spare, ret->data.n_samples - wanted);
    ret->n_held = (uint32_t)qd_min_u64(method.gate_samples, spare);
    if (ret->n_held < method.gate_samples && ret->n_held == 0)
        warn(o.warn_user, "too few calibration samples to hold some back: the quality gate has nothing to measure");
    QD_TRY(hash_of(opts, ret, err));
out:
    qd_free(built_in);
    qd_chat_done(&chat);
    qd_tokenizer_free(tokenizer);
    qd_arena_done(&arena);
    return rc;
}

qd_code qd_job_tokens_count(const qd_job_opts *opts, qd_job_tokens *ret, qd_err *err)
{
    qd_method method = {0};
    qd_code rc = qd_method_of(opts, &method, err);
    if (rc != QD_OK) return rc;
    uint64_t n = count(opts->calib_samples, opts->values, "calib_samples", SAMPLES_DEFAULT);
    uint32_t len = count(opts->calib_seq_len, opts->values, "calib_seq_len", LENGTH_DEFAULT);
    rc = qd_dataset_zeros((uint32_t)qd_min_u64(n + method.gate_samples, UINT32_MAX), len, &ret->data, err);
    if (rc == QD_OK) ret->n_held = method.gate_samples;
    return rc;
}

void qd_job_tokens_done(qd_job_tokens *t)
{
    if (t == NULL) return;
    qd_dataset_done(&t->data);
    memset(t, 0, sizeof *t);
}
