/* fuzz_conf.c -- any bytes as a settings file: refused with a sentence that names the line, or read with every value in
 * its range. */
#include "base/conf.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *text, *path;
    uint64_t choice, count, bytes, ms;
    bool flag;
} settings;

#define AT(field) offsetof(settings, field)
static const qd_conf_key k_keys[] = {
    {"text", QD_CONF_TEXT, AT(text), "t", 0, 0, NULL, true, ""},
    {"path", QD_CONF_PATH, AT(path), "", 0, 0, NULL, true, ""},
    {"choice", QD_CONF_CHOICE, AT(choice), "a", 0, 0, "a|bb|ccc", true, ""},
    {"count", QD_CONF_COUNT, AT(count), "3", 3, 9, NULL, true, ""},
    {"bytes", QD_CONF_BYTES, AT(bytes), "1K", 10, 1 << 30, NULL, true, ""},
    {"ms", QD_CONF_MS, AT(ms), "1s", 1, 0, NULL, true, ""},
    {"flag", QD_CONF_BOOL, AT(flag), "true", 0, 0, NULL, true, ""},
};
static const qd_conf_def k_def = {"fuzz", k_keys, sizeof k_keys / sizeof k_keys[0], sizeof(settings)};

static void promise(bool kept)
{
    if (!kept) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    settings s;
    qd_arena arena = {0};
    qd_err err = {0};
    qd_code rc = qd_conf_parse(&k_def, (const char *)data, size, "input", NULL, 0, &arena, &s, &err);
    promise(rc == QD_OK || (rc == QD_E_CONFIG && strncmp(err.msg, "input:", 6) == 0));
    if (rc == QD_OK) {
        promise(s.choice < 3 && s.count >= 3 && s.count <= 9 && s.bytes >= 10 && s.bytes <= 1 << 30 && s.ms >= 1);
        promise(s.path[0] == '\0' || s.path[0] == '/');
        promise(strlen(s.text) + strlen(s.path) <= size + 1);
    }
    qd_arena_done(&arena);
    return 0;
}
