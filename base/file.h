/* file.h -- whole small files, directories, and durable replacement of a file. */
#ifndef QD_BASE_FILE_H
#define QD_BASE_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a regular file of at most max_bytes; *ret_text is NUL-terminated (after *ret_len bytes), free with qd_free().
 * Errors: QD_E_INPUT (missing, a directory, too large; names the path), QD_E_IO, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_file_read(const char *path, uint64_t max_bytes, char **ret_text, size_t *ret_len, qd_err *err);
/* The first line of a file of the kernel's (/proc, /sys), whose size says nothing, without its end. false, and "":
 * there is none, or it is longer than bytes - 1. */
bool qd_kernel_line(const char *path, char *ret, size_t bytes);
/* Writes path anew: temporary name beside it, fsync, rename. Errors: QD_E_ROOM, QD_E_IO. */
QD_MUST_CHECK qd_code qd_file_replace(const char *path, const void *data, size_t n, qd_err *err);
/* Copies a regular file (no links followed at the last step); the copy is synced. */
QD_MUST_CHECK qd_code qd_file_copy(const char *from, const char *to, qd_err *err);
QD_MUST_CHECK qd_code qd_dir_sync(const char *path, qd_err *err);
/* Deletes a directory tree; a path that is not there is success. Symbolic links are removed, never followed. */
QD_MUST_CHECK qd_code qd_tree_remove(const char *path, qd_err *err);
bool qd_path_exists(const char *path);
bool qd_path_is_dir(const char *path);

#endif
