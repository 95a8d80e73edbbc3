/* copy_limit.c -- what plain reading and writing reaches on this machine: the yardstick of `quantctl quantize`.
 *
 * usage: copy_limit [-t THREADS] [-c CHUNK_KIB] [-b] OUT OUT_BYTES [SOURCE...]
 * Reads every byte of the sources and writes OUT_BYTES bytes to OUT in the same pass, each thread a chunk at a time,
 * both around the page cache; nothing is computed. -b: reads through the page cache (for sources that lie in it).
 * Prints {"seconds", "sync_seconds", "read_bytes", "written_bytes"}; the seconds count from the start of main. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    ALIGN = 4096,
    THREADS_MAX = 64,
    SOURCES_MAX = 4096
};

typedef struct source {
    int fd;
    uint64_t bytes, first_chunk;
} source;

typedef struct copy {
    source *src;
    uint64_t chunk, out_chunk, out_bytes;
    uint64_t n_chunks;
    int out_fd, n_src;
    atomic_ullong next, read_bytes, written_bytes;
    atomic_bool failed;
} copy;

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(copy *c, const char *what)
{
    if (!atomic_exchange(&c->failed, true)) (void)fprintf(stderr, "copy_limit: %s: %s\n", what, strerror(errno));
}

/* One chunk in, its share of the output out. */
static void move(copy *c, uint64_t chunk, unsigned char *buf)
{
    int i = 0;
    while (i + 1 < c->n_src && c->src[i + 1].first_chunk <= chunk) i++;
    if (c->n_src > 0) {
        uint64_t off = (chunk - c->src[i].first_chunk) * c->chunk, left = c->src[i].bytes - off;
        ssize_t want = (ssize_t)(left < c->chunk ? left : c->chunk);
        if (pread(c->src[i].fd, buf, c->chunk, (off_t)off) != want) {
            fail(c, "short read");
            return;
        }
        atomic_fetch_add(&c->read_bytes, (unsigned long long)want);
    }
    uint64_t out = chunk * c->out_chunk;
    if (out >= c->out_bytes) return;
    uint64_t left = c->out_bytes - out;
    size_t n = (size_t)(left < c->out_chunk ? left : c->out_chunk);
    if (pwrite(c->out_fd, buf, n, (off_t)out) != (ssize_t)n)
        fail(c, "short write");
    else
        atomic_fetch_add(&c->written_bytes, n);
}

static void *work(void *arg)
{
    copy *c = arg;
    size_t bytes = c->chunk > c->out_chunk ? c->chunk : c->out_chunk;
    unsigned char *buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buf == MAP_FAILED) {
        fail(c, "buffer");
        return NULL;
    }
    while (!atomic_load(&c->failed)) {
        uint64_t chunk = atomic_fetch_add(&c->next, 1);
        if (chunk >= c->n_chunks) break;
        move(c, chunk, buf);
    }
    (void)munmap(buf, bytes);
    return NULL;
}

static bool open_all(copy *c, char **paths, bool buffered, const char *out)
{
    for (int i = 0; i < c->n_src; i++) {
        struct stat st;
        c->src[i].fd = open(paths[i], O_RDONLY | O_CLOEXEC | (buffered ? 0 : O_DIRECT));
        if (c->src[i].fd < 0 || fstat(c->src[i].fd, &st) != 0) {
            fail(c, paths[i]);
            return false;
        }
        c->src[i].bytes = (uint64_t)st.st_size;
        c->src[i].first_chunk = c->n_chunks;
        c->n_chunks += ((uint64_t)st.st_size + c->chunk - 1) / c->chunk;
    }
    if (c->n_chunks == 0) c->n_chunks = c->out_bytes / c->chunk + 1; /* no sources: writes only */
    c->out_bytes = (c->out_bytes + ALIGN - 1) / ALIGN * ALIGN;       /* direct writes are whole pages */
    c->out_chunk = (c->out_bytes / c->n_chunks + ALIGN) / ALIGN * ALIGN;
    c->out_fd = open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0644);
    if (c->out_fd < 0 || (c->out_bytes > 0 && fallocate(c->out_fd, 0, 0, (off_t)c->out_bytes) != 0)) {
        fail(c, out);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    double start = now_s();
    copy c = {.chunk = 4 << 20, .out_fd = -1};
    pthread_t threads[THREADS_MAX];
    unsigned n_threads = 6, started = 0;
    bool buffered = false;
    for (int opt; (opt = getopt(argc, argv, "t:c:b")) != -1;) {
        if (opt == 't') n_threads = (unsigned)strtoul(optarg, NULL, 10);
        if (opt == 'c') c.chunk = strtoull(optarg, NULL, 10) << 10;
        if (opt == 'b') buffered = true;
    }
    c.n_src = argc - optind - 2;
    if (c.n_src < 0 || c.n_src > SOURCES_MAX || n_threads < 1 || n_threads > THREADS_MAX || c.chunk < ALIGN ||
        c.chunk % ALIGN != 0 || c.chunk > (1 << 30)) {
        (void)fprintf(stderr, "usage: copy_limit [-t THREADS] [-c CHUNK_KIB] [-b] OUT OUT_BYTES [SOURCE...]\n");
        return 2;
    }
    c.out_bytes = strtoull(argv[optind + 1], NULL, 10);
    c.src = calloc((size_t)c.n_src + 1, sizeof *c.src);
    if (c.src == NULL || !open_all(&c, argv + optind + 2, buffered, argv[optind])) return 1;
    while (started < n_threads && pthread_create(&threads[started], NULL, work, &c) == 0) started++;
    for (unsigned i = 0; i < started; i++) (void)pthread_join(threads[i], NULL);
    double done = now_s();
    if (started == 0 || fsync(c.out_fd) != 0) fail(&c, "threads or fsync");
    if (atomic_load(&c.failed)) return 1;
    printf("{\"seconds\": %.6f, \"sync_seconds\": %.6f, \"read_bytes\": %" PRIu64 ", \"written_bytes\": %" PRIu64 "}\n",
           done - start, now_s() - done, (uint64_t)atomic_load(&c.read_bytes), (uint64_t)atomic_load(&c.written_bytes));
    return 0;
}
