#include "worker/background.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"

enum { MESSAGE_MAX = 1024 };

struct background_layer {
    _Atomic uint64_t bytes;
    _Atomic bool whole; /* set after bytes */
};

/* What the child writes: less than PIPE_BUF, so that it comes whole. */
struct report {
    struct image_prepare_news news;
    int failed; /* 1 + enum error_kind */
    int err;
    char message[MESSAGE_MAX];
};

/* ---- in the child --------------------------------------------------------------------------- */

struct work {
    const struct background *background;
    const struct disk_layer *layers;
    int news, poke;
};

static int report_send(int fd, const struct report *report, struct error **ret_error)
{
    if (TEMP_FAILURE_RETRY(write(fd, report, sizeof(*report))) == sizeof(*report))
        return 0;
    return error_set(ret_error, ERROR_CANCELLED, 0, "nobody wants the root filesystem any more");
}

static int work_progress(void *arg, const char *id, const char *status, uint64_t done,
                         uint64_t total, struct error **ret_error)
{
    const struct work *work = arg;
    struct report report = {.news = {.any = true, .done = done, .total = total}};

    while (report.news.layer < work->background->count &&
           !str_starts(work->layers[report.news.layer].diff_id, id))
        report.news.layer++;
    return report_send(work->news, &report, ret_error);
}

static int64_t work_grown(void *arg, const struct disk_layer *layer, uint64_t from, bool *ret_whole,
                          struct error **ret_error)
{
    const struct work *work = arg;
    struct background_layer *shared = &work->background->shared[layer - work->layers];
    char byte;

    for (;;) {
        bool whole = atomic_load(&shared->whole);
        uint64_t bytes = atomic_load(&shared->bytes);
        *ret_whole = whole;
        if (whole || bytes > from)
            return (int64_t)bytes;
        if (TEMP_FAILURE_RETRY(read(work->poke, &byte, sizeof(byte))) <= 0)
            return error_set(ret_error, ERROR_CANCELLED, 0, "no more of the layers will come");
    }
}

static void child_run(struct work *work, const struct disk *disk, struct disk_image *image,
                      const char *path)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct report report = {.news = {.any = true, .ended = true}};
    struct disk_watch watch = {.progress = work_progress, .grown = work_grown, .arg = work};

    if (disk->ops->image_prepare(disk, image, path, &watch, &report.news.size, &error) < 0) {
        report.failed = 1 + (int)error->kind;
        report.err = error->err;
        strncpy(report.message, error->message, MESSAGE_MAX - 1);
    }
    report_send(work->news, &report, NULL);
}

/* ---- in the parent -------------------------------------------------------------------------- */

static int pipes_make(int news[2], int poke[2], struct error **ret_error)
{
    if (pipe2(news, O_CLOEXEC) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a pipe");
    if (pipe2(poke, O_CLOEXEC) == 0) {
        fcntl(news[0], F_SETFL, O_NONBLOCK);
        fcntl(poke[1], F_SETFL, O_NONBLOCK);
        return 0;
    }
    int err = errno;
    close(news[0]);
    close(news[1]);
    return error_set(ret_error, ERROR_IO, err, "make a pipe");
}

int background_begin(struct background *b, const struct disk *disk, const char *id,
                     const struct image_layer *layers, size_t count, uint64_t layer_max_bytes,
                     const char *path, int *ret_fd, struct error **ret_error)
{
    CLEANUP_FREE struct disk_layer *copies = xcalloc(count + 1, sizeof(*copies));
    struct disk_image image = {
        .id = id, .layers = copies, .layer_count = count, .layer_max_bytes = layer_max_bytes};
    struct work work = {.background = b, .layers = copies};
    pid_t parent = getpid();
    int news[2], poke[2];

    for (size_t i = 0; i < count; i++)
        copies[i] = (struct disk_layer){layers[i].path, layers[i].diff_id};
    *b = (struct background){.count = count, .news = -1, .poke = -1};
    b->shared = mmap(NULL, (count + 1) * sizeof(*b->shared), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->shared == MAP_FAILED) {
        b->shared = NULL;
        return error_set(ret_error, ERROR_IO, errno, "share memory");
    }
    if (pipes_make(news, poke, ret_error) < 0)
        return -1;
    b->child = fork();
    if (b->child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(poke[1]);
        work.news = news[1];
        work.poke = poke[0];
        if (getppid() == parent)
            child_run(&work, disk, &image, path);
        _exit(0);
    }
    int err = errno;
    close(news[1]);
    close(poke[0]);
    b->news = *ret_fd = news[0];
    b->poke = poke[1];
    return b->child < 0 ? error_set(ret_error, ERROR_IO, err, "fork") : 0;
}

void background_feed(struct background *b, size_t layer, uint64_t bytes, bool whole)
{
    if (!b->child)
        return;
    atomic_store(&b->shared[layer].bytes, bytes);
    atomic_store(&b->shared[layer].whole, whole);
    /* A full pipe has poked it already. */
    if (write(b->poke, "", 1) < 0 && errno != EAGAIN) {
        close(b->poke);
        b->poke = -1;
    }
}

int background_attend(struct background *b, struct image_prepare_news *ret,
                      struct error **ret_error)
{
    struct report report;
    ssize_t n = TEMP_FAILURE_RETRY(read(b->news, &report, sizeof(report)));

    *ret = (struct image_prepare_news){0};
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n != sizeof(report))
        return error_set(ret_error, ERROR_INTERNAL, 0,
                         "the preparation of the root filesystem ended unexpectedly");
    if (report.failed) {
        report.message[MESSAGE_MAX - 1] = '\0';
        error_set(ret_error, (enum error_kind)(report.failed - 1), 0, "%s", report.message);
        return -1;
    }
    *ret = report.news;
    if (ret->ended)
        background_end(b);
    return 0;
}

void background_end(struct background *b)
{
    if (b->child > 0) {
        kill(b->child, SIGKILL);
        waitpid(b->child, NULL, 0);
    }
    if (b->child && b->news >= 0)
        close(b->news);
    if (b->child && b->poke >= 0)
        close(b->poke);
    if (b->shared)
        munmap(b->shared, (b->count + 1) * sizeof(*b->shared));
    *b = (struct background){.news = -1, .poke = -1};
}
