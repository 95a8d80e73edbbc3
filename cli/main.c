/* main.c -- quantctl: finds the command and runs it. */
#include "base/fault.h"
#include "base/json.h"
#include "cli/cmd.h"
#ifdef QD_WITH_REMOTE
#include "cli/remote.h"
#endif

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} k_commands[] = {
    {"quantize", qd_cmd_quantize, "quantize a model directory"},
    {"forward", qd_cmd_forward, "hidden states and logits of token ids"},
    {"inspect", qd_cmd_inspect, "what a model directory holds, and how it is quantized"},
    {"diff", qd_cmd_diff, "error of a quantized model against its source, worst first"},
    {"import-gguf", qd_cmd_import_gguf, "a GGUF file as a BF16 model directory"},
    {"templates", qd_cmd_templates, "the compression templates"},
    {"models", qd_cmd_models, "the models that the service offers"},
#ifdef QD_WITH_REMOTE
    {"submit", qd_cmd_submit, "give a job to the workers"},
    {"watch", qd_cmd_watch, "follow a job to its end"},
    {"logs", qd_cmd_logs, "a job's log; -f follows it"},
    {"list", qd_cmd_list, "the jobs"},
    {"get", qd_cmd_get, "all about one job"},
    {"cancel", qd_cmd_cancel, "stop a job"},
    {"delete", qd_cmd_delete, "forget a job that has ended"},
    {"workers", qd_cmd_workers, "the workers"},
    {"drain", qd_cmd_drain, "end a worker; its job goes on elsewhere"},
    {"dlq", qd_cmd_dlq, "the jobs that were given up"},
    {"audit", qd_cmd_audit, "who asked for what"},
    {"keys", qd_cmd_keys, "keys of the APIs"},
    {"tenants", qd_cmd_tenants, "what each tenant may use"},
#endif
    {"selftest", qd_cmd_selftest, "whether this machine computes what it should"},
    {"tokenize", qd_cmd_tokenize, "token ids of a text, or of a file of chats"},
};

static void usage(FILE *f)
{
    (void)fputs("usage: quantctl COMMAND ...\n", f);
    for (size_t i = 0; i < sizeof k_commands / sizeof k_commands[0]; i++)
        (void)fprintf(f, "  %-12s %s\n", k_commands[i].name, k_commands[i].what);
    (void)fputs("`quantctl COMMAND --help` says more. Exit codes: 0 done, 1 failed, 2 wrong use, 3 bad input, 4 not "
                "enough room,\n"
                "5 quality gate, 6 target busy, 78 configuration, 130/143 stopped.\n",
                f);
}

int main(int argc, char **argv)
{
    qd_json_use_qd_memory();
    qd_fault_arm_from_env();
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0) return printf("quantctl %s\n", QD_VERSION) < 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof k_commands / sizeof k_commands[0]; i++)
        if (strcmp(argv[1], k_commands[i].name) == 0) return k_commands[i].run(argc - 1, argv + 1);
    (void)fprintf(stderr, "quantctl: unknown command \"%s\"; quantctl --help lists them\n", argv[1]);
    return 2;
}
