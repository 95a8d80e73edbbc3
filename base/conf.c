#include "base/conf.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILE_BYTES_MAX = 1 << 18,
    VALUE_BYTES_MAX = 4096,
    KEYS_MAX = 64
};

static bool is_text(qd_conf_type t)
{
    return t == QD_CONF_TEXT || t == QD_CONF_PATH || t == QD_CONF_SECRET;
}

static void put(void *target, const qd_conf_key *k, const void *value, size_t n)
{
    memcpy((char *)target + k->offset, value, n);
}

static size_t value_bytes(const qd_conf_key *k)
{
    return is_text(k->type) ? sizeof(const char *) : k->type == QD_CONF_BOOL ? sizeof(bool) : sizeof(uint64_t);
}

static void show_number(qd_conf_type type, uint64_t v, char *ret, size_t bytes)
{
    static const struct {
        uint64_t each;
        const char *unit;
    } sizes[] = {{UINT64_C(1) << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}},
      times[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}, {1, "ms"}};
    for (size_t i = 0; type == QD_CONF_BYTES && i < 4; i++)
        if (v != 0 && v % sizes[i].each == 0) {
            (void)snprintf(ret, bytes, "%" PRIu64 "%s", v / sizes[i].each, sizes[i].unit);
            return;
        }
    for (size_t i = 0; type == QD_CONF_MS && i < 5; i++)
        if (v != 0 && v % times[i].each == 0) {
            (void)snprintf(ret, bytes, "%" PRIu64 "%s", v / times[i].each, times[i].unit);
            return;
        }
    (void)snprintf(ret, bytes, "%" PRIu64, v);
}

/* What is allowed, for errors and the reference page. */
static void show_allowed(const qd_conf_key *k, char *ret, size_t bytes)
{
    static const char *const what[] = {[QD_CONF_TEXT] = "text",
                                       [QD_CONF_CHOICE] = "one of",
                                       [QD_CONF_BOOL] = "true or false",
                                       [QD_CONF_COUNT] = "a whole number",
                                       [QD_CONF_BYTES] = "a size",
                                       [QD_CONF_MS] = "a span of time",
                                       [QD_CONF_PATH] = "an absolute path, or nothing",
                                       [QD_CONF_SECRET] = "the absolute path of a file closed to others, or nothing"};
    char lo[32], hi[32];
    if (k->type == QD_CONF_CHOICE) {
        (void)snprintf(ret, bytes, "one of %s", k->choices);
        for (char *s = ret; *s != '\0'; s++)
            if (*s == '|') *s = ',';
        return;
    }
    show_number(k->type, k->min, lo, sizeof lo);
    show_number(k->type, k->max, hi, sizeof hi);
    if (is_text(k->type) || k->type == QD_CONF_BOOL)
        (void)snprintf(ret, bytes, "%s", what[k->type]);
    else if (k->max != 0)
        (void)snprintf(ret, bytes, "%s, %s to %s", what[k->type], lo, hi);
    else
        (void)snprintf(ret, bytes, "%s, at least %s", what[k->type], lo);
}

static bool choose(const char *choices, const char *value, uint64_t *ret)
{
    size_t n = strlen(value);
    uint64_t i = 0;
    for (const char *c = choices; n > 0; i++, c++) {
        size_t len = strcspn(c, "|");
        if (len == n && strncmp(c, value, n) == 0) {
            *ret = i;
            return true;
        }
        c += len;
        if (*c == '\0') break;
    }
    return false;
}

static bool parse_value(const qd_conf_key *k, const char *value, qd_arena *arena, void *target, bool *ret_no_memory)
{
    uint64_t v = 0;
    bool b = strcmp(value, "true") == 0;
    switch (k->type) {
    case QD_CONF_PATH:
    case QD_CONF_SECRET:
    case QD_CONF_TEXT: {
        if (k->type != QD_CONF_TEXT && value[0] != '\0' && value[0] != '/') return false;
        const char *copy = qd_arena_strdup(arena, value);
        *ret_no_memory = copy == NULL;
        put(target, k, &copy, sizeof copy);
        return copy != NULL;
    }
    case QD_CONF_BOOL:
        put(target, k, &b, sizeof b);
        return b || strcmp(value, "false") == 0;
    case QD_CONF_CHOICE:
        if (!choose(k->choices, value, &v)) return false;
        break;
    case QD_CONF_COUNT:
        if (qd_units_count(value, &v, NULL) != QD_OK) return false;
        break;
    case QD_CONF_BYTES:
        if (qd_units_bytes(value, &v, NULL) != QD_OK) return false;
        break;
    case QD_CONF_MS:
        if (qd_units_ms(value, &v, NULL) != QD_OK) return false;
        break;
    }
    if (k->type != QD_CONF_CHOICE && (v < k->min || (k->max != 0 && v > k->max))) return false;
    put(target, k, &v, sizeof v);
    return true;
}

/* A line of the file or a setting: "key = value". line 0: a setting. */
static qd_code take(const qd_conf_def *def, char *text, const char *what, unsigned line, uint64_t *seen,
                    qd_arena *arena, void *target, qd_err *err)
{
    char where[512], allowed[512];
    bool no_memory = false;
    if (line > 0)
        (void)snprintf(where, sizeof where, "%.480s:%u", what, line);
    else
        (void)snprintf(where, sizeof where, "%.480s", what);
    char *eq = strchr(text, '=');
    if (eq == NULL) return qd_fail(err, QD_E_CONFIG, "%s: expected key = value, found \"%.80s\"", where, text);
    char *key_end = eq, *value = eq + 1;
    while (key_end > text && isspace((unsigned char)key_end[-1])) key_end--;
    *key_end = '\0';
    while (isspace((unsigned char)*value)) value++;
    size_t k = 0;
    while (k < def->n_keys && strcmp(def->keys[k].name, text) != 0) k++;
    if (k == def->n_keys)
        return qd_fail(err, QD_E_CONFIG, "%s: unknown key \"%.80s\"; %s --config-reference lists them", where, text,
                       def->program);
    if (line > 0 && (*seen >> k & 1) != 0) return qd_fail(err, QD_E_CONFIG, "%s: \"%s\" is given twice", where, text);
    *seen |= UINT64_C(1) << k;
    if (strlen(value) < VALUE_BYTES_MAX && parse_value(&def->keys[k], value, arena, target, &no_memory)) return QD_OK;
    if (no_memory) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", where);
    show_allowed(&def->keys[k], allowed, sizeof allowed);
    return qd_fail(err, QD_E_CONFIG, "%s: %s: expected %s, found \"%.80s\"", where, text, allowed, value);
}

static qd_code take_text(const qd_conf_def *def, char *text, size_t len, const char *what, qd_arena *arena,
                         void *target, qd_err *err)
{
    uint64_t seen = 0;
    unsigned line = 1;
    for (char *at = text; at < text + len; line++) {
        char *end = memchr(at, '\n', (size_t)(text + len - at));
        char *next = end != NULL ? end + 1 : text + len;
        if (end == NULL) end = text + len;
        if (memchr(at, '\0', (size_t)(end - at)) != NULL)
            return qd_fail(err, QD_E_CONFIG, "%s:%u: a NUL byte: this is no text file", what, line);
        while (end > at && isspace((unsigned char)end[-1])) end--;
        *end = '\0'; /* the text has a byte behind its end */
        while (isspace((unsigned char)*at)) at++;
        if (*at != '\0' && *at != '#') {
            qd_code rc = take(def, at, what, line, &seen, arena, target, err);
            if (rc != QD_OK) return rc;
        }
        at = next;
    }
    return QD_OK;
}

qd_code qd_conf_parse(const qd_conf_def *def, const char *text, size_t len, const char *what,
                      const char *const *settings, size_t n_settings, qd_arena *arena, void *target, qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t seen = 0;
    char *copy = NULL;
    bool no_memory = false;
    if (def->n_keys > KEYS_MAX) return qd_fail(err, QD_E_INTERNAL, "%s: more than %d keys", def->program, KEYS_MAX);
    memset(target, 0, def->bytes);
    for (size_t k = 0; k < def->n_keys; k++)
        if (!parse_value(&def->keys[k], def->keys[k].dflt, arena, target, &no_memory)) {
            rc = no_memory ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for the settings")
                           : qd_fail(err, QD_E_INTERNAL, "%s: the default of %s is not allowed", def->program,
                                     def->keys[k].name);
            goto out;
        }
    if (text != NULL) {
        copy = qd_malloc(len + 1);
        if (copy == NULL) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
            goto out;
        }
        memcpy(copy, text, len);
        copy[len] = '\0';
        QD_TRY(take_text(def, copy, len, what, arena, target, err));
    }
    for (size_t i = 0; i < n_settings; i++) {
        qd_free(copy);
        copy = qd_strdup(settings[i]);
        if (copy == NULL) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the settings");
            goto out;
        }
        QD_TRY(take(def, copy, "--set", 0, &seen, arena, target, err));
    }
out:
    qd_free(copy);
    return rc;
}

qd_code qd_conf_check_secret(const char *path, qd_err *err)
{
    struct stat st;
    qd_code rc = QD_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return qd_fail_errno(err, QD_E_CONFIG, errno, "%s", path);
    if (fstat(fd, &st) != 0)
        rc = qd_fail_errno(err, QD_E_CONFIG, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = qd_fail(err, QD_E_CONFIG, "%s: expected a regular file", path);
    else if (st.st_uid != 0 && st.st_uid != geteuid())
        rc = qd_fail(err, QD_E_CONFIG, "%s: expected a file of root's or user %u's, found user %u's", path,
                     (unsigned)geteuid(), (unsigned)st.st_uid);
    else if ((st.st_mode & 027) != 0)
        rc = qd_fail(err, QD_E_CONFIG, "%s: expected a mode of 0640 or less, found %04o: others could read the secret",
                     path, (unsigned)st.st_mode & 07777);
    (void)close(fd);
    return rc;
}

qd_code qd_conf_load(const qd_conf_def *def, const char *path, const char *const *settings, size_t n_settings,
                     qd_arena *arena, void *target, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_code rc = QD_OK;
    if (path != NULL) {
        rc = qd_file_read(path, FILE_BYTES_MAX, &text, &len, err);
        if (rc == QD_E_INPUT && err != NULL) err->code = rc = QD_E_CONFIG;
        if (rc != QD_OK) goto out;
    }
    QD_TRY(qd_conf_parse(def, text, len, path, settings, n_settings, arena, target, err));
    for (size_t k = 0; k < def->n_keys; k++) {
        const char *secret = NULL;
        if (def->keys[k].type != QD_CONF_SECRET) continue;
        memcpy(&secret, (const char *)target + def->keys[k].offset, sizeof secret);
        if (secret[0] == '\0') continue;
        rc = qd_conf_check_secret(secret, err);
        if (rc != QD_OK) {
            qd_err_context(err, "%s", def->keys[k].name);
            goto out;
        }
    }
out:
    qd_free(text);
    return rc;
}

void qd_conf_take(const qd_conf_def *def, void *target, const void *fresh, qd_buf *ret_stale)
{
    for (size_t i = 0; i < def->n_keys; i++) {
        const qd_conf_key *k = &def->keys[i];
        char *to = (char *)target + k->offset;
        const char *from = (const char *)fresh + k->offset;
        const char *a = NULL, *b = NULL;
        bool same = memcmp(to, from, value_bytes(k)) == 0;
        if (is_text(k->type)) {
            memcpy(&a, to, sizeof a);
            memcpy(&b, from, sizeof b);
            same = strcmp(a, b) == 0;
        }
        if (k->reloadable) {
            memcpy(to, from, value_bytes(k));
        } else if (!same) {
            if (ret_stale->len != 0) qd_buf_str(ret_stale, ", ");
            qd_buf_str(ret_stale, k->name);
        }
    }
}

void qd_conf_page(const qd_conf_def *def, qd_buf *ret)
{
    char allowed[512];
    qd_buf_printf(ret,
                  "# Settings of %s\n\n"
                  "A file of `key = value` lines; `#` begins a comment line. Unknown keys, keys given twice and values "
                  "that are not allowed stop the\nstart with a sentence that names file, line and key. `--set "
                  "key=value` on the command line overrides the file.\nThis page is made by `%s --config-reference`.\n",
                  def->program, def->program);
    for (size_t i = 0; i < def->n_keys; i++) {
        const qd_conf_key *k = &def->keys[i];
        show_allowed(k, allowed, sizeof allowed);
        qd_buf_printf(ret, "\n## %s\n%s\n\nAllowed: %s. Default: %s%s%s. %s\n", k->name, k->help, allowed,
                      k->dflt[0] != '\0' ? "`" : "", k->dflt[0] != '\0' ? k->dflt : "nothing",
                      k->dflt[0] != '\0' ? "`" : "",
                      k->reloadable ? "Taken by a reload (SIGHUP)." : "Needs a restart.");
    }
}

qd_code qd_conf_check_zone(const char *name, const char *zone, qd_err *err)
{
    char path[256];
    (void)snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", zone);
    if (strstr(zone, "..") == NULL && zone[0] != '/' && (strcmp(zone, "UTC") == 0 || qd_path_exists(path)))
        return QD_OK;
    return qd_fail(err, QD_E_CONFIG, "%s: expected a zone below /usr/share/zoneinfo or UTC, found \"%s\"", name, zone);
}
