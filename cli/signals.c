#include "cli/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static qd_cancel *g_token; /* a handler has no other way to it */

static void on_signal(int sig)
{
    if (qd_cancel_asked(g_token)) _exit(128 + sig);
    qd_cancel_set(g_token, sig);
}

void qd_signals_to(qd_cancel *token)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    g_token = token;
    sa.sa_handler = on_signal;
    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) (void)sigaction(signals[i], &sa, NULL);
    sa.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &sa, NULL);
}

int qd_signals_exit(qd_cancel *token)
{
    int sig = qd_cancel_asked(token);
    return sig > 1 ? 128 + sig : 130;
}
