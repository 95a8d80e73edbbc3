/* signals.h -- SIGINT, SIGTERM and SIGHUP set a cancel token; a second one ends the program at once. */
#ifndef QD_CLI_SIGNALS_H
#define QD_CLI_SIGNALS_H

#include "base/cancel.h"

/* token must live until the program ends (a handler refers to it). SIGPIPE is ignored. */
void qd_signals_to(qd_cancel *token);
/* Exit code of a canceled run: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP. */
int qd_signals_exit(qd_cancel *token);

#endif
