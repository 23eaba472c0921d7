#include "huskd/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/str.h"
#include "exec/accel.h"
#include "huskd/places.h"
#include "loop/loop.h"

struct check {
    const struct settings *settings;
    struct places places;
    FILE *out;
    unsigned problems;
};

static void found(struct check *c, bool good, const char *what, const char *path, const char *more)
{
    fprintf(c->out, "%-8s %s '%s'%s%s\n", good ? "ok" : "problem", what, path, *more ? ": " : "",
            more);
    if (!good)
        c->problems++;
}

static void check_access(struct check *c, const char *what, const char *path, int mode)
{
    bool good = access(path, mode) == 0;
    found(c, good, what, path, good ? "" : strerror(errno));
}

/* "QEMU emulator version 7.2.9 (Debian …)" */
static void check_qemu(struct check *c)
{
    static const char expected[] = "QEMU emulator version ";
    const char *const argv[] = {c->places.qemu, "--version", NULL};
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *said = NULL;
    if (access(c->places.qemu, X_OK) < 0) {
        check_access(c, "QEMU", c->places.qemu, X_OK);
        return;
    }
    bool ran = child_ask(c->places.qemu, argv, &said, &error) == 0;
    const char *line = ran ? strstr(said, expected) : NULL; /* warnings may come before it */
    bool good = line != NULL;
    const char *version = good ? line + strlen(expected) : "";
    CLEANUP_FREE char *number = str_printf("version %.*s", (int)strcspn(version, " \n"), version);
    found(c, good, "QEMU", c->places.qemu,
          good    ? number
          : error ? error_text(error)
                  : "it does not say that it is QEMU");
}

static void check_programs(struct check *c)
{
    check_qemu(c);
    check_access(c, "program", c->places.keeper, X_OK);
    check_access(c, "program", c->places.worker, X_OK);
    check_access(c, "program", c->places.transfer, X_OK);
    check_access(c, "program", "/sbin/mke2fs", X_OK);
    check_access(c, "module for QEMU", c->places.module, R_OK);
    if (str_eq(c->settings->storage, "overlay"))
        check_access(c, "program of storage=overlay", c->settings->virtiofsd, X_OK);
}

int check_storage(const struct settings *settings, const char *worker, struct error **ret_error)
{
    CLEANUP_STRV char **options =
        str_empty(settings->storage_opt) ? NULL : str_split(settings->storage_opt, ',');
    CLEANUP_STRV char **words = NULL;
    CLEANUP_FREE char *said = NULL;
    strv_push(&words, worker);
    strv_push(&words, "--check-storage");
    strv_push(&words, settings->storage);
    STRV_FOREACH(option, options)
        strv_push(&words, *option);
    int status = child_ask(worker, (const char *const *)words, &said, ret_error);
    if (status <= 0)
        return status;
    said[strcspn(said, "\n")] = '\0';
    return error_set(ret_error, ERROR_INVALID, 0, "%s", said);
}

static void check_driver(struct check *c)
{
    CLEANUP_ERROR struct error *error = NULL;
    bool good = check_storage(c->settings, c->places.worker, &error) == 0;
    found(c, good, "storage driver", c->settings->storage, good ? "" : error_text(error));
}

/* What begins a file, at some offset. */
struct magic {
    size_t offset, size;
    const char *bytes;
};

/* Linux: Documentation/arch/x86/boot.rst. */
static const struct magic kernels[] = {{0, 4, "\177ELF"}, {0x202, 4, "HdrS"}};
/* cpio (newc), and what the kernel unpacks: Documentation/driver-api/early-userspace. */
static const struct magic initramfses[] = {
    {0, 5, "07070"},        {0, 2, "\x1f\x8b"},         {0, 4, "\x28\xb5\x2f\xfd"},
    {0, 5, "\xfd\x37zXZ"},  {0, 4, "\x02\x21\x4c\x18"}, {0, 3, "BZh"},
    {0, 3, "\x5d\x00\x00"}, {0, 4, "\x89LZO"},
};

static void check_magic(struct check *c, const char *what, const char *path,
                        const struct magic *magics, size_t count)
{
    char head[0x210] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, head, sizeof(head)));
    CLEANUP_FREE char *problem =
        size < 0 ? xstrdup(strerror(errno)) : str_printf("it is no %s", what);
    bool good = false;
    for (size_t i = 0; size >= 0 && i < count; i++)
        good |= memcmp(head + magics[i].offset, magics[i].bytes, magics[i].size) == 0;
    if (fd >= 0)
        close(fd);
    found(c, good, what, path, good ? "" : problem);
}

static void check_guest(struct check *c)
{
    check_magic(c, "kernel", c->places.kernel, kernels, ARRAY_SIZE(kernels));
    check_magic(c, "initramfs", c->places.initrd, initramfses, ARRAY_SIZE(initramfses));
    check_access(c, "first image", c->places.busybox, R_OK);
}

static void check_memory(struct check *c)
{
    struct sysinfo host = {0};
    sysinfo(&host);
    uint64_t bytes = (uint64_t)host.totalram * host.mem_unit;
    CLEANUP_FREE char *size =
        str_printf("%llu MiB", (unsigned long long)c->settings->memory_default >> 20);
    CLEANUP_FREE char *all = str_printf("the host has %llu MiB", (unsigned long long)bytes >> 20);
    found(c, c->settings->memory_default <= bytes, "memory of a pod that names none", size, all);
}

static void check_accel(struct check *c)
{
    const char *reason = "set by accel";
    const char *accel = c->settings->accel;
    if (str_eq(accel, "auto"))
        accel = accel_choose(ACCEL_KVM, ACCEL_CPUINFO, c->settings->qemu_user, &reason);
    if (!str_eq(accel, "kvm")) {
        found(c, true, "guests run by", accel, reason);
        return;
    }
    CLEANUP_ERROR struct error *error = NULL;
    const char *user = c->settings->qemu_user;
    bool opens = access(ACCEL_KVM, R_OK | W_OK) == 0;
    bool good = opens && (str_empty(user) || child_user_may_use(user, ACCEL_KVM, &error) == 0);
    found(c, good, "guests run by", accel,
          good     ? reason
          : !opens ? ACCEL_KVM " cannot be opened"
                   : error_text(error));
}

/* The nearest directory that exists must be writable. */
static void check_directory(struct check *c, const char *what, const char *directory)
{
    CLEANUP_FREE char *path = xstrdup(directory);
    struct statvfs space;
    char *slash;
    while (access(path, F_OK) < 0 && (slash = strrchr(path, '/')) && slash != path)
        *slash = '\0';
    if (access(path, W_OK | X_OK) < 0) {
        found(c, false, what, directory, strerror(errno));
        return;
    }
    CLEANUP_FREE char *room =
        statvfs(path, &space) < 0
            ? xstrdup("")
            : str_printf("%llu MiB free",
                         (unsigned long long)space.f_bavail * space.f_frsize >> 20);
    found(c, true, what, directory, room);
}

/* Huge pages are there only if the administrator has set them aside. */
static void check_huge_pages(struct check *c)
{
    char line[128];
    unsigned long long pages = 0, kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof(line), f)) {
        sscanf(line, "HugePages_Total: %llu", &pages);
        sscanf(line, "Hugepagesize: %llu", &kib);
    }
    if (f)
        fclose(f);
    CLEANUP_FREE char *there = str_printf("%llu MiB of huge pages", pages * kib >> 10);
    found(c, pages > 0, "memory of templates", c->settings->template_memory,
          pages > 0 ? there : "no huge pages are set aside: see vm.nr_hugepages of sysctl(8)");
}

static void check_templates(struct check *c)
{
    CLEANUP_FREE char *usual = str_printf("%s/templates", c->places.root);
    if (!str_eq(c->settings->templates, "on"))
        return;
    check_directory(c, "templates", str_or(c->places.templates, usual));
    if (str_eq(c->settings->template_memory, "hugetlb"))
        check_huge_pages(c);
}

/* That a file is not there was said before. */
static void check_user_reads(struct check *c, const char *what, const char *path)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (child_user_may_read(c->settings->qemu_user, path, &error) < 0 &&
        error->kind == ERROR_DENIED)
        found(c, false, what, path, error_text(error));
}

static void check_user(struct check *c)
{
    const char *user = c->settings->qemu_user;
    if (str_empty(user))
        return;
    const struct passwd *pw = getpwnam(user);
    bool good = pw && (geteuid() == 0 || geteuid() == pw->pw_uid);
    found(c, good, "user of QEMU", user,
          good  ? ""
          : !pw ? "there is no such user: name another by qemu_user"
                : "only root can change to another user");
    check_user_reads(c, "kernel", c->places.kernel);
    check_user_reads(c, "initramfs", c->places.initrd);
}

unsigned check_host(const struct settings *settings, FILE *out)
{
    struct check c = {.settings = settings, .out = out};
    places_init(&c.places, settings);
    check_programs(&c);
    check_driver(&c);
    check_guest(&c);
    check_memory(&c);
    check_accel(&c);
    check_directory(&c, "root", c.places.root);
    check_templates(&c);
    check_user(&c);
    places_done(&c.places);
    return c.problems;
}
