#include "base/buf.h"
#include "base/file.h"
#include "catalog/template.h"

#include <stdlib.h>

char *qd_template_dirs(const char *given)
{
    qd_buf b = {0};
    const char *env = getenv("QD_TEMPLATES");
    if (given != NULL || (env != NULL && env[0] != '\0')) {
        qd_buf_str(&b, given != NULL ? given : env);
        return b.failed ? NULL : b.data;
    }
    static const char *const built_in[] = {QD_TEMPLATE_DIR_INSTALLED, QD_TEMPLATE_DIR_SOURCE};
    qd_buf_str(&b, "");
    for (size_t i = 0; i < sizeof built_in / sizeof built_in[0]; i++)
        if (qd_path_is_dir(built_in[i])) {
            if (b.len != 0) qd_buf_str(&b, ":");
            qd_buf_str(&b, built_in[i]);
        }
    if (!b.failed) return b.data;
    qd_buf_done(&b);
    return NULL;
}
