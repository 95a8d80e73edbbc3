/* disk.c -- the directories of all jobs: staging by epoch, OUT, trash. Every change is one instant; before and after it
 * the actor may stop or crash. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static qd_code gate(qd_err *err)
{
    if (!sim_gate()) return qd_fail(err, QD_E_IO, "crashed");
    sim_sleep(sim_random(sim_faults() && sim_chance(sim.p.slow_disk) ? 2 * LEASE_MS : 20));
    if (sim.now->crashed) return qd_fail(err, QD_E_IO, "crashed");
    if (sim_faults() && (sim_chance(sim.p.disk_error) || (sim.now->sick && sim_chance(20000))))
        return qd_fail(err, QD_E_IO, "the disk fails");
    return QD_OK;
}

static void drop_staging(job *k, size_t i)
{
    k->stagings[i] = k->stagings[--k->n_stagings];
}

static staging *find(job *k, uint64_t epoch)
{
    for (size_t i = 0; i < k->n_stagings; i++)
        if (k->stagings[i].epoch == epoch) return &k->stagings[i];
    return NULL;
}

static qd_code adopt(void *ctx, const qd_job_record *rec, bool *ret_found, qd_err *err)
{
    (void)ctx;
    job *k = sim_job(rec->id);
    staging *newest = NULL;
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < k->n_stagings; i++)
        if (k->stagings[i].epoch < rec->epoch && (newest == NULL || k->stagings[i].epoch > newest->epoch))
            newest = &k->stagings[i];
    if (newest != NULL && find(k, rec->epoch) == NULL) {
        sim_say("%s: staging %llu becomes %llu", k->id, (unsigned long long)newest->epoch,
                (unsigned long long)rec->epoch);
        newest->epoch = rec->epoch;
        sim_total.resumes++;
    }
    if (rec->epoch > k->adopted_epoch) k->adopted_epoch = rec->epoch;
    *ret_found = find(k, rec->epoch) != NULL;
    return sim_gate() ? QD_OK : qd_fail(err, QD_E_IO, "crashed");
}

static qd_code output(void *ctx, const qd_job_record *rec, bool *ret_there, qd_report_summary *ret, qd_err *err)
{
    (void)ctx;
    job *k = sim_job(rec->id);
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    *ret_there = k->out;
    ret->tensors_quantized = 7;
    return QD_OK;
}

static qd_code discard_staging(void *ctx, const qd_job_record *rec, qd_err *err)
{
    (void)ctx;
    job *k = sim_job(rec->id);
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < k->n_stagings;)
        if (k->stagings[i].epoch <= rec->epoch) {
            sim_say("%s: staging %llu to trash", k->id, (unsigned long long)k->stagings[i].epoch);
            drop_staging(k, i);
            k->n_trash++;
        } else {
            i++;
        }
    return sim_gate() ? QD_OK : qd_fail(err, QD_E_IO, "crashed");
}

static void trash_out(job *k)
{
    if (!k->out) return;
    sim_say("%s: OUT to trash", k->id);
    sim_total.outs_trashed++;
    if (k->seen && k->state == QD_JOB_SUCCEEDED) sim_fail("%s: OUT of a job that succeeded goes to trash", k->id);
    k->out = false;
    k->n_trash++;
}

static qd_code discard_output(void *ctx, const qd_job_record *rec, qd_err *err)
{
    (void)ctx;
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    trash_out(sim_job(rec->id));
    return sim_gate() ? QD_OK : qd_fail(err, QD_E_IO, "crashed");
}

static qd_code each(void *ctx, qd_disk_each fn, void *fn_ctx, qd_err *err)
{
    (void)ctx;
    qd_code rc = QD_OK;
    for (size_t i = 0; i < sim.n_jobs && rc == QD_OK; i++) {
        job *k = &sim.jobs[i];
        staging list[STAGINGS_MAX];
        size_t n = k->n_stagings;
        memcpy(list, k->stagings, sizeof list);
        qd_disk_item item = {.path = k->id, .job_id = k->id};
        for (size_t s = 0; s < n && rc == QD_OK; s++) {
            item.kind = QD_DISK_STAGING;
            item.epoch = list[s].epoch;
            rc = fn(fn_ctx, &item, err);
        }
        item.kind = QD_DISK_OUTPUT;
        if (k->out && rc == QD_OK) rc = fn(fn_ctx, &item, err);
        item.kind = QD_DISK_TRASH;
        if (k->n_trash != 0 && rc == QD_OK) rc = fn(fn_ctx, &item, err);
    }
    return rc;
}

static qd_code discard(void *ctx, const qd_disk_item *item, qd_err *err)
{
    (void)ctx;
    job *k = sim_job(item->job_id);
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    if (item->kind == QD_DISK_TRASH) k->n_trash = 0;
    if (item->kind == QD_DISK_OUTPUT) trash_out(k);
    if (item->kind == QD_DISK_STAGING)
        for (size_t i = 0; i < k->n_stagings; i++)
            if (k->stagings[i].epoch == item->epoch) {
                sim_say("%s: leaked staging %llu to trash", k->id, (unsigned long long)item->epoch);
                drop_staging(k, i);
                k->n_trash++;
                break;
            }
    return QD_OK;
}

const qd_jobs_disk sim_disk = {.adopt = adopt,
                               .output = output,
                               .discard_staging = discard_staging,
                               .discard_output = discard_output,
                               .each = each,
                               .discard = discard};

qd_code sim_disk_make(job *k, uint64_t epoch, qd_err *err)
{
    qd_code rc = gate(err);
    if (rc != QD_OK || find(k, epoch) != NULL) return rc;
    if (k->n_stagings == STAGINGS_MAX) {
        sim_fail("%s: %d staging directories", k->id, STAGINGS_MAX);
        return QD_OK;
    }
    k->stagings[k->n_stagings++] = (staging){.epoch = epoch};
    sim_say("%s: makes staging %llu", k->id, (unsigned long long)epoch);
    return QD_OK;
}

qd_code sim_disk_write(job *k, uint64_t epoch, qd_err *err)
{
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    return find(k, epoch) != NULL ? QD_OK
                                  : qd_fail(err, QD_E_NOT_FOUND, "staging %llu is gone", (unsigned long long)epoch);
}

qd_code sim_disk_commit(job *k, uint64_t epoch, qd_err *err)
{
    /* Between the last question and the rename is where it matters most. */
    if (sim_faults() && sim_chance(sim.p.slow_rename)) sim_sleep(sim_random(4 * LEASE_MS));
    qd_code rc = gate(err);
    if (rc != QD_OK) return rc;
    staging *s = find(k, epoch);
    if (s == NULL) return qd_fail(err, QD_E_NOT_FOUND, "staging %llu is gone", (unsigned long long)epoch);
    sim_say("%s: staging %llu becomes OUT", k->id, (unsigned long long)epoch);
    if (epoch < k->adopted_epoch)
        sim_fail("%s: epoch %llu made OUT after epoch %llu had come to the directories", k->id,
                 (unsigned long long)epoch, (unsigned long long)k->adopted_epoch);
    if (k->out) sim_fail("%s: a second OUT, of epoch %llu", k->id, (unsigned long long)epoch);
    if (k->deleted || (k->seen && k->state == QD_JOB_CANCELED)) sim_fail("%s: OUT appears after the end", k->id);
    k->out = true;
    k->out_epoch = epoch;
    drop_staging(k, (size_t)(s - k->stagings));
    return sim_gate() ? QD_OK : qd_fail(err, QD_E_IO, "crashed");
}
