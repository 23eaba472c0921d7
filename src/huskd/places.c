#include "huskd/places.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

enum {
    SOCKET_BACKLOG = 128,
    SOCKET_MODE = 0660,
    LISTEN_FDS_START = 3, /* where systemd puts the sockets that it passes, sd_listen_fds(3) */
};

/* ---- programs and files --------------------------------------------------------------------- */

static char *own_directory(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n <= 0)
        return xstrdup("/");
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    return xstrndup(path, (size_t)(slash - path));
}

/* What is set; else beside us, as in a build; else where `make install` puts it, seen from
 * PREFIX/sbin: so an installed tree may be moved. */
static char *directory_find(const char *set, const char *beside, const char *installed,
                            const char *file)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", beside, file);
    if (!str_empty(set))
        return xstrdup(set);
    return xstrdup(access(path, F_OK) == 0 ? beside : installed);
}

/* As execvp() would; the name itself if there is none. */
static char *program_find(const char *name)
{
    if (strchr(name, '/'))
        return xstrdup(name);
    CLEANUP_STRV char **directories = str_split(str_or(getenv("PATH"), "/usr/bin:/bin"), ':');
    STRV_FOREACH(directory, directories) {
        char *path = str_printf("%s/%s", *directory, name);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup(name);
}

/* "a, b": the words. */
static char **list_split(const char *text)
{
    char **words = NULL;
    for (const char *at = str_or(text, ""); *at;) {
        size_t length = strcspn(at, ", \t");
        if (length)
            strv_push_take(&words, xstrndup(at, length));
        at += length + (at[length] != '\0');
    }
    return words;
}

void places_init(struct places *places, const struct settings *settings)
{
    CLEANUP_FREE char *here = own_directory();
    CLEANUP_FREE char *guest_here = str_printf("%s/guest", here);
    CLEANUP_FREE char *libexec_there = str_printf("%s/../libexec/husk", here);
    CLEANUP_FREE char *guest_there = str_printf("%s/../lib/husk/guest", here);
    CLEANUP_FREE char *libexec =
        directory_find(settings->libexec, here, libexec_there, "husk-keeper");
    CLEANUP_FREE char *guest = directory_find(settings->guest, guest_here, guest_there, "vmlinux");
    places->root = xstrdup(settings->root);
    places->templates = xstrdup(str_or(settings->template_dir, ""));
    places->keeper = str_printf("%s/husk-keeper", libexec);
    places->worker = str_printf("%s/husk-worker", libexec);
    places->transfer = str_printf("%s/husk-transfer", libexec);
    places->module = str_printf("%s/husk-qemu.so", libexec);
    places->insecure = list_split(settings->insecure_registries);
    places->mirrors = list_split(settings->registry_mirrors);
    places->kernel =
        str_empty(settings->kernel) ? str_printf("%s/vmlinux", guest) : xstrdup(settings->kernel);
    places->initrd = str_empty(settings->initrd) ? str_printf("%s/initramfs.cpio", guest)
                                                 : xstrdup(settings->initrd);
    places->busybox = str_printf("%s/busybox.tar", guest);
    places->qemu = program_find(settings->qemu);
}

void places_done(struct places *places)
{
    free(places->root);
    free(places->templates);
    free(places->keeper);
    free(places->worker);
    free(places->transfer);
    free(places->module);
    strv_free(places->insecure);
    strv_free(places->mirrors);
    free(places->kernel);
    free(places->initrd);
    free(places->busybox);
    free(places->qemu);
}

/* ---- the root ------------------------------------------------------------------------------- */

static int directories_make(const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *prefix = xstrdup(path);
    for (char *p = prefix + 1;; p++) {
        char end = *p;
        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        if (mkdir(prefix, 0711) < 0 && errno != EEXIST)
            return error_set(ret_error, ERROR_IO, errno, "mkdir '%s'", prefix);
        *p = end;
        if (!end)
            return 0;
    }
}

static int lock_take(const char *root, int *ret_fd, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/lock", root);
    char pid[32] = "";
    *ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*ret_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    if (flock(*ret_fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t n = pread(*ret_fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        close(*ret_fd);
        return error_set(ret_error, ERROR_BUSY, 0, "another huskd uses '%s': process %s", root,
                         str_or(pid, "unknown"));
    }
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (ftruncate(*ret_fd, 0) < 0 || pwrite(*ret_fd, pid, strlen(pid), 0) < 0)
        log_warning("write '%s': %s", path, strerror(errno)); /* it is locked all the same */
    return 0;
}

int root_take(struct places *places, int *ret_fd, struct error **ret_error)
{
    static const char *const parts[] = {"vms", "pods"};
    if (directories_make(places->root, ret_error) < 0)
        return -1;
    char *canonical = realpath(places->root, NULL);
    if (!canonical)
        return error_set(ret_error, ERROR_IO, errno, "the root '%s'", places->root);
    free(places->root);
    places->root = canonical;
    if (str_empty(places->templates)) {
        free(places->templates);
        places->templates = str_printf("%s/templates", canonical);
    }
    if (lock_take(canonical, ret_fd, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        CLEANUP_FREE char *path = str_printf("%s/%s", canonical, parts[i]);
        if (mkdir(path, 0711) < 0 && errno != EEXIST)
            return error_set(ret_error, ERROR_IO, errno, "mkdir '%s'", path);
    }
    return 0;
}

/* ---- the socket ----------------------------------------------------------------------------- */

static int address_make(const char *path, struct sockaddr_un *ret, struct error **ret_error)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret->sun_path))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "the socket's name '%s' is longer than the %zu bytes that a socket's "
                         "address may have",
                         path, sizeof(ret->sun_path) - 1);
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Whether a process accepts connections there. */
static bool somebody_listens(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    bool listens = rc == 0 || errno == EAGAIN;
    close(fd);
    return listens;
}

static int stale_remove(const char *path, const struct sockaddr_un *address,
                        struct error **ret_error)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return error_set(ret_error, ERROR_EXISTS, 0, "'%s' is there and is not a socket", path);
    if (somebody_listens(address))
        return error_set(ret_error, ERROR_BUSY, 0, "another daemon answers on '%s'", path);
    if (unlink(path) < 0)
        return error_set(ret_error, ERROR_IO, errno, "remove the stale socket '%s'", path);
    return 0;
}

/* The group may be missing; then the socket is root's, or its maker's. */
static void group_give(const char *path, const char *name)
{
    const struct group *group = str_empty(name) ? NULL : getgrnam(name);
    if (group && chown(path, (uid_t)-1, group->gr_gid) < 0 && geteuid() == 0)
        log_warning("give '%s' to group '%s': %s", path, name, strerror(errno));
}

static int socket_make(const struct settings *settings, int *ret_fd, struct error **ret_error)
{
    const char *path = settings->socket;
    struct sockaddr_un address;
    if (address_make(path, &address, ret_error) < 0 || stale_remove(path, &address, ret_error) < 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "socket");
    mode_t mask = umask(0777 & ~SOCKET_MODE);
    int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    int failed = errno;
    umask(mask);
    if (rc < 0) {
        close(fd);
        return error_set(ret_error, ERROR_IO, failed, "make the socket '%s'", path);
    }
    group_give(path, settings->group);
    if (listen(fd, SOCKET_BACKLOG) < 0) {
        close(fd);
        return error_set(ret_error, ERROR_IO, errno, "listen on '%s'", path);
    }
    *ret_fd = fd;
    return 0;
}

/* sd_listen_fds(3) and sd_notify(3) are a few lines each: not worth their library, which would
 * cost memory for compression and hashes that nothing here uses. */
static unsigned sockets_passed(void)
{
    uint64_t pid, count;
    if (!str_to_u64(str_or(getenv("LISTEN_PID"), ""), 1, INT32_MAX, &pid) ||
        pid != (uint64_t)getpid() ||
        !str_to_u64(str_or(getenv("LISTEN_FDS"), ""), 0, INT32_MAX, &count))
        return 0;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return (unsigned)count;
}

static bool is_listening(int fd)
{
    int listens = 0;
    socklen_t size = sizeof(listens);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

int socket_take(const struct settings *settings, int *ret_fd, bool *ret_activated,
                struct error **ret_error)
{
    unsigned count = sockets_passed();
    *ret_activated = count == 1;
    if (count > 1)
        return error_set(ret_error, ERROR_INVALID, 0, "systemd passed %u sockets instead of one",
                         count);
    if (count == 0)
        return socket_make(settings, ret_fd, ret_error);
    if (!is_listening(LISTEN_FDS_START))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "descriptor %d, which systemd passed, is not a listening socket",
                         LISTEN_FDS_START);
    *ret_fd = LISTEN_FDS_START;
    fcntl(*ret_fd, F_SETFL, O_NONBLOCK);
    fcntl(*ret_fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

void service_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    if (str_empty(path) || address_make(path, &address, NULL) < 0)
        return;
    size_t size = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (*path == '@')
        address.sun_path[0] = '\0'; /* an abstract name */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)size) < 0)
        log_warning("tell the service manager '%s': %s", state, strerror(errno));
    close(fd);
}
