/* cmd.h -- the commands of quantctl: each takes its own arguments (argv[0] is its name) and returns the exit code. */
#ifndef QD_CLI_CMD_H
#define QD_CLI_CMD_H

#include "base/err.h"

#include <stdbool.h>

int qd_cmd_quantize(int argc, char **argv);
int qd_cmd_forward(int argc, char **argv);
int qd_cmd_inspect(int argc, char **argv);
int qd_cmd_diff(int argc, char **argv);
int qd_cmd_import_gguf(int argc, char **argv);
int qd_cmd_templates(int argc, char **argv);
int qd_cmd_models(int argc, char **argv);
int qd_cmd_selftest(int argc, char **argv);
int qd_cmd_tokenize(int argc, char **argv);

/* Prints "quantctl: <sentence>" to stderr, or one JSON object {"event":"error",...} to stdout, and returns the exit
 * code. */
int qd_cmd_fail(const qd_err *err, bool json);

#endif
