#include "cli/cmd.h"

#include "base/buf.h"

#include <stdio.h>

int qd_cmd_fail(const qd_err *err, bool json)
{
    if (json) {
        qd_buf b = {0};
        qd_buf_printf(&b, "{\"event\":\"error\",\"code\":\"%s\",\"message\":", qd_code_name(err->code));
        qd_buf_json_str(&b, err->msg);
        qd_buf_str(&b, "}\n");
        if (!b.failed) (void)fputs(b.data, stdout);
        (void)fflush(stdout);
        qd_buf_done(&b);
    }
    (void)fprintf(stderr, "quantctl: %s\n", err->msg);
    return qd_code_exit(err->code);
}
