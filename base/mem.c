#include "base/mem.h"

#include "base/fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *qd_malloc(size_t bytes)
{
    return qd_fault_here(QD_FAULT_ALLOC) ? NULL : malloc(bytes == 0 ? 1 : bytes);
}

void *qd_calloc(size_t n, size_t bytes_each)
{
    return qd_fault_here(QD_FAULT_ALLOC) ? NULL : calloc(n == 0 ? 1 : n, bytes_each == 0 ? 1 : bytes_each);
}

void *qd_realloc(void *p, size_t bytes)
{
    return qd_fault_here(QD_FAULT_ALLOC) ? NULL : realloc(p, bytes == 0 ? 1 : bytes);
}

char *qd_strndup(const char *s, size_t n)
{
    char *copy = qd_malloc(n + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *qd_strdup(const char *s)
{
    return qd_strndup(s, strlen(s));
}

void *qd_malloc_aligned(size_t align, size_t bytes)
{
    void *p = NULL;
    if (qd_fault_here(QD_FAULT_ALLOC)) return NULL;
    return posix_memalign(&p, align, bytes == 0 ? 1 : bytes) == 0 ? p : NULL;
}

void qd_free(void *p)
{
    free(p);
}

void *qd_map(size_t bytes)
{
    if (qd_fault_here(QD_FAULT_ALLOC)) return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* fewer page faults and TLB misses in the encoder; refusal is harmless */
    return p;
}

void qd_unmap(void *p, size_t bytes)
{
    if (p != NULL) (void)munmap(p, bytes);
}

uint64_t qd_rss_anon_bytes(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    uint64_t total_kib = 0;
    static const char *const keys[] = {"\nRssAnon:", "\nRssShmem:"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *at = strstr(text, keys[i]);
        if (at != NULL) total_kib += strtoull(at + strlen(keys[i]), NULL, 10);
    }
    return total_kib * 1024;
}
