/* comm_one_map.c -- for ThreadSanitizer: all ranks of this process map a gang's segment at one address, where it can
 * see that they are ordered. Linked with --wrap=mmap64,--wrap=munmap. */
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

void *__real_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *p, size_t bytes);
void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *p, size_t bytes);

enum {
    MAPS = 64,
    LEAST_BYTES = 1 << 16 /* smaller ones are not whole segments */
};

typedef struct one_map {
    ino_t inode;
    void *p;
    size_t bytes;
    int n_users;
} one_map;

static one_map maps[MAPS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    struct stat st;
    void *p = NULL;
    if ((flags & MAP_SHARED) == 0 || bytes < LEAST_BYTES || fd < 0 || fstat(fd, &st) != 0)
        return __real_mmap64(at, bytes, prot, flags, fd, offset);
    (void)pthread_mutex_lock(&lock);
    one_map *spare = NULL;
    for (int i = 0; i < MAPS && p == NULL; i++) {
        if (maps[i].n_users == 0) spare = &maps[i];
        if (maps[i].n_users > 0 && maps[i].inode == st.st_ino) {
            maps[i].n_users++;
            p = maps[i].p;
        }
    }
    if (p == NULL) {
        p = __real_mmap64(at, bytes, prot, flags, fd, offset);
        if (p != MAP_FAILED && spare != NULL) *spare = (one_map){st.st_ino, p, bytes, 1};
    }
    (void)pthread_mutex_unlock(&lock);
    return p;
}

int __wrap_munmap(void *p, size_t bytes)
{
    int rc = 0;
    (void)pthread_mutex_lock(&lock);
    one_map *found = NULL;
    for (int i = 0; i < MAPS; i++)
        if (maps[i].n_users > 0 && maps[i].p == p) found = &maps[i];
    if (found == NULL || --found->n_users == 0) rc = __real_munmap(p, bytes);
    (void)pthread_mutex_unlock(&lock);
    return rc;
}
