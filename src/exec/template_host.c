/* What templates have on the host: memory, and files in a directory of their own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "exec/template.h"

enum {
    RANDOM_LETTERS = 10,
    VM_LETTERS = 4,
    MEMORY_SPARE = 64 << 20, /* left to the host beside a new template */
};

#define STAGE_PREFIX  ".new-"
#define DOOMED_PREFIX ".old-"
#define LETTERS       "abcdefghijklmnopqrstuvwxyz"

/* ---- the memory ----------------------------------------------------------------------------- */

/* What programs can still have; false if the kernel does not tell. */
static bool memory_available(uint64_t *ret_bytes)
{
    char line[128];
    uint64_t kib;
    bool found = false;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && !found && fgets(line, sizeof(line), f))
        found = sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1;
    if (f)
        fclose(f);
    *ret_bytes = found ? kib << 10 : 0;
    return found;
}

/* A shared mapping reserves huge pages for its file, until the file goes. */
static int huge_pages_reserve(int fd, uint64_t size, struct error **ret_error)
{
    void *reserved = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (reserved == MAP_FAILED)
        return error_set(ret_error, ERROR_NO_SPACE, 0,
                         "there are not %" PRIu64 " MiB of huge pages for it: set "
                         "template_memory=tmpfs, or vm.nr_hugepages of sysctl(8)",
                         size >> 20);
    munmap(reserved, size);
    return 0;
}

/* What a guest has not touched takes nothing; but how much that will be is not known before. */
int template_has_memory(const struct template *t, struct error **ret_error)
{
    uint64_t available;
    if (!memory_available(&available) || available >= t->base_bytes + MEMORY_SPARE)
        return 0;
    return error_set(ret_error, ERROR_NO_SPACE, 0,
                     "there is no memory for it: %" PRIu64 " MiB are available, and it may "
                     "take %" PRIu64 " MiB and leave %d: set templates=off or make room",
                     available >> 20, t->base_bytes >> 20, MEMORY_SPARE >> 20);
}

int template_memory_make(const struct template *t, int *ret_fd, struct error **ret_error)
{
    const struct exec_config *config = &t->exec->config;
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (config->template_huge ? MFD_HUGETLB : 0);
    if (template_has_memory(t, ret_error) < 0)
        return -1;
    int fd = memfd_create("husk-template", flags);
    if (fd < 0 || ftruncate(fd, (off_t)t->base_bytes) < 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return error_set(ret_error, ERROR_IO, err, "make a %s memory of %" PRIu64 " MiB",
                         config->template_huge ? "huge-paged" : "shared", t->base_bytes >> 20);
    }
    if (config->template_huge && huge_pages_reserve(fd, t->base_bytes, ret_error) < 0) {
        close(fd);
        return -1;
    }
    *ret_fd = fd;
    return 0;
}

/* QEMU opens the file for writing, and may even punch holes in it, although its mapping is private:
 * after this the kernel refuses both. */
int template_memory_seal(int fd, struct error **ret_error)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set(ret_error, ERROR_IO, errno, "seal the memory");
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

char *template_path(const struct template *t)
{
    return str_printf("%s/%s", t->exec->config.template_dir, t->id);
}

char *template_vm_name(const struct template *t, const char *kind)
{
    char random[VM_LETTERS + 1] = "";
    str_random(random, VM_LETTERS, LETTERS);
    return str_printf("%s%s-%s", kind, t->id, random);
}

char *template_stage(const struct template *t)
{
    return str_printf(STAGE_PREFIX "%s", t->id);
}

/* It has another name at once: a template of the same name that is saved meanwhile stays. */
void template_files_remove(struct exec *exec, const char *name)
{
    const char *dir = exec->config.template_dir;
    char random[RANDOM_LETTERS + 1] = "";
    str_random(random, RANDOM_LETTERS, LETTERS);
    CLEANUP_FREE char *doomed = str_printf(DOOMED_PREFIX "%s", random);
    CLEANUP_FREE char *from = str_printf("%s/%s", dir, name);
    CLEANUP_FREE char *to = str_printf("%s/%s", dir, doomed);
    const char *const paths[] = {doomed, NULL};
    if (rename(from, to) == 0)
        pool_remove_below(exec->pool, dir, paths);
    else if (errno != ENOENT)
        log_warning("remove '%s': %s", from, strerror(errno));
}

/* Its time tells the next daemon when it was used last. */
void template_files_touch(const struct template *t)
{
    CLEANUP_FREE char *path = template_path(t);
    utimensat(AT_FDCWD, path, NULL, 0);
}

bool template_files_look(struct template *t)
{
    CLEANUP_FREE char *path = template_path(t);
    CLEANUP_FREE char *meta = str_printf("%s/template.json", path);
    struct stat files, made;
    if (t->files_doomed || stat(path, &files) < 0 || stat(meta, &made) < 0)
        return false;
    t->used_ns = (int64_t)files.st_mtim.tv_sec * 1000000000 + files.st_mtim.tv_nsec;
    t->created_ns = (int64_t)made.st_mtim.tv_sec * 1000000000 + made.st_mtim.tv_nsec;
    return true;
}

/* ---- at the start --------------------------------------------------------------------------- */

/* Images that were rehearsed, of archives that are there no more. */
static void rehearsals_scan(struct exec *exec)
{
    CLEANUP_FREE char *path = path_full(exec, "cache");
    CLEANUP_FREE char *present = rehearsal_image(&exec->config);
    CLEANUP_STRV char **old = NULL;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        CLEANUP_FREE char *file = str_printf("cache/%s", entry->d_name);
        if (str_starts(file, REHEARSAL_PREFIX) && !str_eq(file, present))
            strv_push_take(&old, take(file));
    }
    if (directory)
        closedir(directory);
    if (old)
        pool_remove(exec->pool, (const char *const *)old, NULL, NULL);
}

void template_files_scan(struct templates *ts)
{
    struct exec *exec = ts->exec;
    CLEANUP_STRV char **images = NULL;
    DIR *directory = opendir(exec->config.template_dir);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const char *name = entry->d_name;
        uint64_t base;
        if (str_starts(name, STAGE_PREFIX) || str_starts(name, DOOMED_PREFIX)) {
            template_files_remove(exec, name);
            continue;
        }
        if (str_starts(name, TEMPLATE_IMAGE_PREFIX)) {
            strv_push(&images, name); /* when all the others are known */
            continue;
        }
        if (!template_id_read(name, &base))
            continue; /* not ours */
        struct template *t = template_of_base(exec, base);
        if (str_eq(t->id, name)) {
            t->wanted = true;
            continue;
        }
        log_info("template '%s' is removed: what it was made of has changed", name);
        template_files_remove(exec, name);
        t->wanted = true;
    }
    if (directory)
        closedir(directory);
    STRV_FOREACH(name, images) {
        if (template_image_found(ts, *name))
            continue;
        log_info("template '%s' is removed: what it was made of has changed", *name);
        template_files_remove(exec, *name);
    }
    rehearsals_scan(exec);
}

int template_directory_take(struct templates *ts)
{
    const char *path = ts->exec->config.template_dir;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        ts->unusable = str_printf("mkdir '%s': %s", path, strerror(errno));
    } else {
        ts->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (ts->lock < 0)
            ts->unusable = str_printf("open '%s': %s", path, strerror(errno));
        else if (flock(ts->lock, LOCK_EX | LOCK_NB) < 0)
            ts->unusable = str_printf("another huskd uses '%s': set another template_dir", path);
    }
    if (!ts->unusable)
        return 0;
    log_warning("there are no templates: %s", ts->unusable);
    return -1;
}
