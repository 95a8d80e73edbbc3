/* selftest.c -- `quantctl selftest`: whether this machine computes what it should. */
#include "engine/selftest.h"

#include "base/buf.h"
#include "base/clock.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/signals.h"
#include "gpu/nvml.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char k_usage[] =
    "usage: quantctl selftest [--device cpu|gpu0] [options]\n"
    "  --device NAME        what is checked (default cpu)\n"
    "  --dir DIR            where small models are made and removed (default $TMPDIR, /tmp)\n"
    "  --threads N          compute threads (default: one a processor)\n"
    "  --nvml FILE          NVIDIA's management library (default " QD_NVML_LIBRARY ")\n"
    "  --json               one JSON object a line on stdout\n"
    "Takes less than a minute. Exit codes: 0 all well, 1 a check failed or the GPU is faulty, "
    "3 no such device here.\n";

typedef struct selftest_args {
    const char *device, *dir, *nvml;
    uint64_t threads;
    bool json, help;
    qd_arg_list rest;
} selftest_args;

static void print(const qd_buf *b)
{
    if (!b->failed) (void)fputs(b->data, stdout);
    (void)fflush(stdout);
}

static void told(void *ctx, const qd_selftest_check *c)
{
    const selftest_args *a = ctx;
    qd_buf b = {0};
    if (a->json) {
        qd_buf_str(&b, "{\"event\":\"check\",\"name\":");
        qd_buf_json_str(&b, c->name);
        qd_buf_printf(&b, ",\"ok\":%s,\"cases\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"seconds\":%.3f,\"what\":",
                      c->n_failed == 0 ? "true" : "false", c->n_cases, c->n_failed, c->seconds);
        qd_buf_json_str(&b, c->what);
        qd_buf_str(&b, "}\n");
    } else {
        qd_buf_printf(&b, "%-4s  %-36s %9" PRIu64 " cases  %6.2f s", c->n_failed == 0 ? "ok" : "FAIL", c->name,
                      c->n_cases, c->seconds);
        if (c->n_failed != 0) qd_buf_printf(&b, "  %" PRIu64 " failed, the first:", c->n_failed);
        qd_buf_printf(&b, "%s%s\n", c->what[0] != '\0' ? "  " : "", c->what);
    }
    print(&b);
    qd_buf_done(&b);
}

/* A GPU is asked how it fares before it is asked to compute. *ret_faulty: the check failed. */
static qd_code check_gpu(const selftest_args *a, bool *ret_faulty, qd_err *err)
{
    qd_selftest_check c = {.name = "health of the GPU"};
    qd_nvml *n = NULL;
    qd_gpu_health h = {0};
    char why[160] = "";
    uint64_t began = qd_mono_ns();
    if (strncmp(a->device, "gpu", 3) != 0 || !isdigit((unsigned char)a->device[3])) return QD_OK;
    qd_code rc = qd_nvml_open(a->nvml, (unsigned)strtoul(a->device + 3, NULL, 10), &n, err);
    if (rc != QD_OK) {
        qd_err_context(err, "%.20s", a->device);
        if (err->code == QD_E_DEVICE) err->code = rc = QD_E_UNSUPPORTED; /* not here, as without the library */
        return rc;
    }
    qd_nvml_read(n, &h);
    qd_nvml_close(n);
    *ret_faulty = qd_gpu_faulty(&h, why, sizeof why);
    qd_selftest_case(&c, !*ret_faulty, "%s: %s", h.name, why);
    if (!*ret_faulty)
        (void)snprintf(c.what, sizeof c.what, "%s, %.1f of %.1f GB free, %u C", h.name,
                       (double)h.memory_free_bytes * 1e-9, (double)h.memory_bytes * 1e-9, h.temperature_c);
    c.seconds = (double)(qd_mono_ns() - began) * 1e-9;
    told((void *)(uintptr_t)a, &c);
    return QD_OK;
}

static void conclude(const selftest_args *a, unsigned n_failed, double seconds)
{
    if (a->json)
        (void)printf("{\"event\":\"done\",\"device\":\"%s\",\"ok\":%s,\"failed_checks\":%u,\"seconds\":%.3f}\n",
                     a->device, n_failed == 0 ? "true" : "false", n_failed, seconds);
    else
        (void)printf("%s: %s in %.1f s\n", a->device, n_failed == 0 ? "all well" : "checks failed", seconds);
}

int qd_cmd_selftest(int argc, char **argv)
{
    static qd_cancel cancel; /* signal handlers refer to it until the program ends */
    selftest_args a = {.device = "cpu"};
    qd_err err = {0};
    const qd_opt opts[] = {
        {"--device", NULL, QD_OPT_TEXT, &a.device}, {"--dir", NULL, QD_OPT_TEXT, &a.dir},
        {"--nvml", NULL, QD_OPT_TEXT, &a.nvml},     {"--threads", NULL, QD_OPT_COUNT, &a.threads},
        {"--json", NULL, QD_OPT_FLAG, &a.json},     {"--help", "-h", QD_OPT_FLAG, &a.help},
    };
    uint64_t began = qd_mono_ns();
    unsigned n_failed = 0;
    bool faulty = false;
    qd_code rc = qd_args_parse(argc, argv, opts, sizeof opts / sizeof opts[0], 0, 0, &a.rest, &err);
    if (rc == QD_OK && a.help) return fputs(k_usage, stdout) < 0;
    if (rc == QD_OK && a.threads > 256)
        rc = qd_fail(&err, QD_E_USAGE, "--threads: expected at most 256, found %" PRIu64, a.threads);
    if (rc == QD_OK) rc = check_gpu(&a, &faulty, &err);
    const qd_selftest_opts o = {
        .device = a.device, .dir = a.dir, .n_threads = (unsigned)a.threads, .cancel = &cancel, .ctx = &a, .told = told};
    qd_signals_to(&cancel);
    if (rc == QD_OK && !faulty) rc = qd_selftest_run(&o, &n_failed, &err);
    if (rc != QD_OK) {
        int code = qd_cmd_fail(&err, a.json);
        return rc == QD_E_CANCELED ? qd_signals_exit(&cancel) : code;
    }
    n_failed += faulty;
    conclude(&a, n_failed, (double)(qd_mono_ns() - began) * 1e-9);
    return n_failed != 0;
}
