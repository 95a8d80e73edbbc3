/* bailian_list.c -- GET jobs: filters, order, pages. */
#include "gateway/bailian.h"
#include "gateway/json_make.h"
#include "gateway/times.h"

#include <string.h>

static bool read_state(qd_bailian *q, uint32_t *ret)
{
    const char *name = qd_bailian_query(q, "status");
    if (name == NULL) return true;
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++)
        if (strcmp(name, qd_job_state_name((qd_job_state)s)) == 0) {
            *ret = UINT32_C(1) << s;
            return true;
        }
    return qd_bailian_fail(q, QD_BAILIAN_CHOICE, "status",
                           "[PENDING,QUEUING,RUNNING,CANCELING,SUCCEEDED,FAILED,CANCELED]", NULL);
}

static bool read_times(qd_bailian *q, qd_job_query *ret)
{
    const char *from = qd_bailian_query(q, "start_time"), *to = qd_bailian_query(q, "end_time");
    qd_time_span span = {0};
    if (from != NULL && !qd_time_read(from, &span))
        return qd_bailian_fail(q, QD_BAILIAN_TIME, "start_time", NULL, NULL);
    ret->started_from_ms = span.first_ms;
    if (to == NULL) return true;
    if (!qd_time_read(to, &span)) return qd_bailian_fail(q, QD_BAILIAN_TIME, "end_time", NULL, NULL);
    ret->ended_to_ms = span.last_ms;
    return true;
}

/* select_key says nothing without search_key. */
static bool read_search(qd_bailian *q, qd_job_query *ret)
{
    const char *where = qd_bailian_query(q, "select_key");
    ret->find_part = qd_bailian_query(q, "search_key");
    if (ret->find_part == NULL || where == NULL) return true;
    ret->find_in = strcmp(where, "job_id") == 0     ? QD_FIND_ID
                   : strcmp(where, "job_name") == 0 ? QD_FIND_NAME
                                                    : QD_FIND_EITHER;
    return ret->find_in != QD_FIND_EITHER ||
           qd_bailian_fail(q, QD_BAILIAN_CHOICE, "select_key", "[job_id,job_name]", NULL);
}

static bool read_order(qd_bailian *q, qd_job_query *ret)
{
    const char *by = qd_bailian_query(q, "sort_by"), *order = qd_bailian_query(q, "sort_order");
    if (by != NULL && strcmp(by, "create_time") != 0)
        return qd_bailian_fail(q, QD_BAILIAN_CHOICE, "sort_by", "[create_time]", NULL);
    ret->ascending = order != NULL && strcmp(order, "asc") == 0;
    return order == NULL || ret->ascending || strcmp(order, "desc") == 0 ||
           qd_bailian_fail(q, QD_BAILIAN_CHOICE, "sort_order", "[asc,desc]", NULL);
}

void qd_bailian_list(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    uint64_t no = 0, size = 0;
    qd_job_page page = {0};
    qd_job_query query = {
        .origin = QUANTD__API_ORIGIN__API_BAILIAN,
        .model = qd_bailian_query(q, "model"),
        .template_id = qd_bailian_query(q, "template_id"),
        .quant_spec = qd_bailian_query(q, "quant_spec"),
        .quant_method = qd_bailian_query(q, "quant_method"),
        .id_part = qd_bailian_query(q, "job_id"),
        .name_part = qd_bailian_query(q, "job_name"),
        .want_total = true,
    };
    if (!read_state(q, &query.states) || !read_times(q, &query) || !read_search(q, &query) || !read_order(q, &query) ||
        !qd_bailian_query_page(q, &no, &size))
        return;
    query.skip = (no - 1) * size;
    query.count = (uint32_t)size;
    qd_code rc = b->ops->job_list(b->ctx, q->caller, &query, &page, NULL);
    if (rc != QD_OK) {
        (void)qd_bailian_fail_code(q, rc);
        return;
    }
    json_t *jobs = json_array();
    for (size_t i = 0; i < page.n; i++) qd_json_push(&jobs, qd_bailian_job(q, page.jobs[i], QD_BAILIAN_LISTED));
    qd_bailian_ok(q, "output",
                  json_pack("{s:I, s:I, s:I, s:o}", "total", (json_int_t)page.total, "page_no", (json_int_t)no,
                            "page_size", (json_int_t)size, "jobs", jobs));
    qd_job_page_done(&page);
}
