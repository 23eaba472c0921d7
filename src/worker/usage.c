#include "worker/usage.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/str.h"
#include "disk/disk.h"
#include "worker/storage.h"

static int size_tell(struct peer *peer, uint32_t seq, const char *name, uint64_t bytes,
                     struct error **ret_error)
{
    struct wire_job_size message = {.seq = seq, .name = name, .bytes = bytes};

    return peer_send(peer, WIRE_JOB_SIZE, &message, ret_error);
}

/* One that is not there takes nothing, and one that is being removed may go at any moment. */
static int layers_tell(struct peer *peer, const struct wire_job_usage *job, const struct disk *disk,
                       struct error **ret_error)
{
    for (const char *const *at = job->layers; at && at[0] && at[1]; at += 2) {
        uint64_t bytes = 0;
        if (disk->ops->layer_usage(disk, at[1], &bytes, NULL) == 0 &&
            size_tell(peer, job->seq, at[0], bytes, ret_error) < 0)
            return -1;
    }
    return 0;
}

/* What is in the directories below `pods` and has the name of a log. */
static uint64_t logs_usage(const char *pods)
{
    DIR *dir = opendir(pods);
    uint64_t all = 0, bytes;

    for (struct dirent *pod; dir && (pod = readdir(dir));) {
        CLEANUP_FREE char *path = str_printf("%s/%s", pods, pod->d_name);
        DIR *files = pod->d_name[0] == '.' ? NULL : opendir(path);
        for (struct dirent *file; files && (file = readdir(files));) {
            CLEANUP_FREE char *log = str_printf("%s/%s", path, file->d_name);
            if ((str_ends(log, ".log") || str_ends(log, ".log.1")) &&
                disk_usage(log, &bytes, NULL) == 0)
                all += bytes;
        }
        if (files)
            closedir(files);
    }
    if (dir)
        closedir(dir);
    return all;
}

/* The directories of the root, and of the storage drivers that have one. */
static int places_tell(struct peer *peer, const struct wire_job_usage *job,
                       struct error **ret_error)
{
    static const char *const places[] = {"blobs",        "images", "overlay",
                                         "devicemapper", "cache",  "tmp"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *path = str_printf("%s/%s", job->root, places[i]);
        uint64_t bytes;
        if (disk_usage(path, &bytes, NULL) == 0 &&
            size_tell(peer, job->seq, places[i], bytes, ret_error) < 0)
            return -1;
    }
    return 0;
}

static int all_tell(struct peer *peer, const struct wire_job_usage *job, struct error **ret_error)
{
    CLEANUP_FREE char *pods = str_printf("%s/pods", job->root);
    uint64_t templates = 0;
    struct statvfs fs;

    if (statvfs(job->root, &fs) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at the file system of '%s'", job->root);
    if (places_tell(peer, job, ret_error) < 0 ||
        size_tell(peer, job->seq, "logs", logs_usage(pods), ret_error) < 0)
        return -1;
    if (disk_usage(job->templates, &templates, NULL) == 0 &&
        size_tell(peer, job->seq, "templates", templates, ret_error) < 0)
        return -1;
    if (size_tell(peer, job->seq, "total", (uint64_t)fs.f_blocks * fs.f_frsize, ret_error) < 0)
        return -1;
    return size_tell(peer, job->seq, "free", (uint64_t)fs.f_bavail * fs.f_frsize, ret_error);
}

int job_usage(struct peer *peer, const void *request, uint64_t *ret_value, struct error **ret_error)
{
    const struct wire_job_usage *job = request;
    struct disk disk;

    if (storage_open(job->root, &disk, ret_error) < 0 ||
        layers_tell(peer, job, &disk, ret_error) < 0)
        return -1;
    return job->all ? all_tell(peer, job, ret_error) : 0;
}
