#include "gateway/backend.h"

#include "base/mem.h"

#include <string.h>

void qd_job_page_done(qd_job_page *p)
{
    if (p == NULL) return;
    for (size_t i = 0; i < p->n; i++) qd_msg_free(p->jobs[i]);
    qd_free(p->jobs);
    memset(p, 0, sizeof *p);
}

void qd_log_page_done(qd_log_page *p)
{
    if (p == NULL) return;
    qd_arena_done(&p->arena);
    memset(p, 0, sizeof *p);
}

void qd_file_page_done(qd_file_page *p)
{
    if (p == NULL) return;
    for (size_t i = 0; i < p->n; i++) qd_msg_free(p->files[i]);
    qd_free(p->files);
    memset(p, 0, sizeof *p);
}
