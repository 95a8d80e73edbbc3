/* path.h -- names of files from outside, checked before they are opened. */
#ifndef QD_BASE_PATH_H
#define QD_BASE_PATH_H

#include <stdbool.h>

/* True for a plain file name: not empty, not "." or "..", no '/', no control bytes, at most 255 bytes. */
bool qd_name_is_plain(const char *name);
/* "dir/name", to be freed with qd_free(); NULL when memory is out. */
char *qd_path_join(const char *dir, const char *name);
/* Last component, without trailing slashes of path being counted ("a/b/" -> "b/"): pointer into path. */
const char *qd_path_base(const char *path);
/* True when path is absolute, without ".." and below one of the ':'-separated roots (empty: any). */
bool qd_path_below(const char *path, const char *roots);
bool qd_str_ends(const char *s, const char *suffix);
bool qd_str_starts(const char *s, const char *prefix);

#endif
