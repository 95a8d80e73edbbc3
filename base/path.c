#include "base/path.h"

#include "base/mem.h"

#include <string.h>

bool qd_name_is_plain(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > 255 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f) return false;
    return true;
}

char *qd_path_join(const char *dir, const char *name)
{
    size_t a = strlen(dir), b = strlen(name);
    while (a > 1 && dir[a - 1] == '/') a--;
    char *p = qd_malloc(a + b + 2);
    if (p == NULL) return NULL;
    memcpy(p, dir, a);
    size_t at = a;
    if (a == 0 || dir[a - 1] != '/') p[at++] = '/';
    memcpy(p + at, name, b + 1);
    return p;
}

const char *qd_path_base(const char *path)
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    return path + n;
}

bool qd_str_ends(const char *s, const char *suffix)
{
    size_t a = strlen(s), b = strlen(suffix);
    return a >= b && memcmp(s + a - b, suffix, b) == 0;
}

bool qd_str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool qd_path_below(const char *path, const char *roots)
{
    if (path[0] != '/') return false;
    for (const char *p = path; (p = strstr(p, "/..")) != NULL; p += 3)
        if (p[3] == '/' || p[3] == '\0') return false;
    if (roots[0] == '\0') return true;
    for (const char *r = roots; *r != '\0';) {
        size_t n = strcspn(r, ":"), len = n;
        while (len > 1 && r[len - 1] == '/') len--;
        if (len == 1 && r[0] == '/') return true;
        if (len > 0 && strncmp(path, r, len) == 0 && path[len] == '/' && path[len + 1] != '\0') return true;
        r += n + (r[n] == ':');
    }
    return false;
}
