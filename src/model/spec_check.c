/* What a podfile's values must be. */
#include <ctype.h>
#include <inttypes.h>
#include <strings.h>

#include "base/str.h"
#include "model/spec_int.h"

/* Linux on x86; signal(7). Index is the number. */
static const char *const signals[] = {
    NULL,        "SIGHUP",  "SIGINT",    "SIGQUIT", "SIGILL",   "SIGTRAP", "SIGABRT", "SIGBUS",
    "SIGFPE",    "SIGKILL", "SIGUSR1",   "SIGSEGV", "SIGUSR2",  "SIGPIPE", "SIGALRM", "SIGTERM",
    "SIGSTKFLT", "SIGCHLD", "SIGCONT",   "SIGSTOP", "SIGTSTP",  "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGXCPU",   "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",   "SIGPWR",  "SIGSYS",
};

enum { SIGNAL_MAX = 64 };

unsigned signal_from_name(const char *name)
{
    uint64_t number;

    if (!name)
        return 0;
    if (str_to_u64(name, 1, SIGNAL_MAX, &number))
        return (unsigned)number;
    for (unsigned i = 1; i < ARRAY_SIZE(signals); i++)
        if (strcasecmp(name, signals[i]) == 0 || strcasecmp(name, signals[i] + strlen("SIG")) == 0)
            return i;
    return 0;
}

const char *signal_name(unsigned number)
{
    return number < ARRAY_SIZE(signals) ? signals[number] : NULL;
}

int name_check(const char *what, const char *name, struct error **ret_error)
{
    if (strlen(name) > NAME_LEN_MAX)
        return error_set(ret_error, ERROR_INVALID, 0, "%s '%.20s…' is longer than %d characters",
                         what, name, NAME_LEN_MAX);
    bool good = isalnum((unsigned char)name[0]);

    for (const char *c = name; *c; c++)
        good = good && (isalnum((unsigned char)*c) || strchr("_.-", *c));
    if (!good)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "%s '%s' is not letters, digits, '_', '.' or '-', with a letter or digit "
                         "first",
                         what, name);
    return 0;
}

/* RFC 1123, in lower case as HyperContainer wants it. */
static int hostname_check(const char *hostname, struct error **ret_error)
{
    CLEANUP_STRV char **labels = str_split(hostname, '.');

    STRV_FOREACH(label, labels) {
        size_t length = strlen(*label);
        bool good = length && (*label)[0] != '-' && (*label)[length - 1] != '-';

        for (const char *c = *label; *c; c++)
            good = good && (islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '-');
        if (!good)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "hostname '%s' is not lower-case letters, digits and '-' between dots",
                             hostname);
    }
    return 0;
}

static int envs_check(char *const *envs, const char *path, struct error **ret_error)
{
    for (size_t i = 0; envs && envs[i]; i++) {
        size_t length = (size_t)(strchr(envs[i], '=') - envs[i]) + 1;

        for (size_t j = 0; j < i; j++)
            if (strncmp(envs[i], envs[j], length) == 0)
                return error_set(ret_error, ERROR_INVALID, 0, "'%senvs' has '%.*s' more than once",
                                 path, (int)length - 1, envs[i]);
    }
    return 0;
}

static int id_check(const char *id, const char *path, struct error **ret_error)
{
    bool good = strlen(id) == CTR_ID_LEN;

    for (const char *c = id; *c; c++)
        good = good && (isdigit((unsigned char)*c) || (*c >= 'a' && *c <= 'f'));
    if (good)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0, "'%sid' is not %d hexadecimal digits", path,
                     CTR_ID_LEN);
}

int ctr_spec_check(const struct ctr_spec *spec, const char *path, struct error **ret_error)
{
    if (!spec->image)
        return error_set(ret_error, ERROR_INVALID, 0, "'%simage' is missing", path);
    if (spec->name && name_check("container name", spec->name, ret_error) < 0)
        return -1;
    if (spec->id && id_check(spec->id, path, ret_error) < 0)
        return -1;
    if ((spec->user && strchr(spec->user, ':')) || (spec->group && strchr(spec->group, ':')))
        return error_set(ret_error, ERROR_INVALID, 0, "'%suser' has a ':' in a name", path);
    return envs_check(spec->envs, path, ret_error);
}

static int resource_check(const struct pod_spec *spec, const struct spec_limits *limits,
                          struct error **ret_error)
{
    uint64_t memory_min = limits->memory_min_mb ? limits->memory_min_mb : SPEC_MEMORY_MIN_MB;
    uint64_t vcpu_max = limits->vcpu_max ? limits->vcpu_max : SPEC_VCPU_MAX;

    if (spec->memory_mb < memory_min)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "memory of %" PRIu64 " MB is below the minimum of %" PRIu64 " MB",
                         spec->memory_mb, memory_min);
    if (limits->memory_max_mb && spec->memory_mb > limits->memory_max_mb)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "memory of %" PRIu64 " MB is more than the host's %" PRIu64 " MB",
                         spec->memory_mb, limits->memory_max_mb);
    if (spec->vcpu > vcpu_max)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "%" PRIu64 " virtual CPUs are more than the maximum of %" PRIu64,
                         spec->vcpu, vcpu_max);
    if ((!limits->unsized_storage || spec->storage_mb) && spec->storage_mb < SPEC_STORAGE_MIN_MB)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "storage of %" PRIu64 " MB is below the minimum of %d MB",
                         spec->storage_mb, SPEC_STORAGE_MIN_MB);
    return 0;
}

static int log_check(const struct pod_spec *spec, struct error **ret_error)
{
    uint64_t bytes;

    if (spec->log_type && !str_eq(spec->log_type, "json-file") && !str_eq(spec->log_type, "none"))
        return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                         "log type '%s' is not supported: json-file and none are", spec->log_type);
    for (char **c = spec->log_config; c && *c; c += 2) {
        if (!str_eq(c[0], "max-size"))
            return error_set(ret_error, ERROR_INVALID, 0, "unknown key 'log.config.%.80s'", c[0]);
        if (!str_to_size(c[1], 1, &bytes))
            return error_set(ret_error, ERROR_INVALID, 0,
                             "'log.config.max-size' is no size: "
                             "'%.40s'",
                             c[1]);
    }
    return 0;
}

static int unique_check(const struct pod_spec *spec, struct error **ret_error)
{
    for (size_t i = 0; i < spec->container_count; i++) {
        const struct ctr_spec *a = &spec->containers[i];

        for (size_t j = 0; j < i; j++) {
            const struct ctr_spec *b = &spec->containers[j];

            if (a->name && str_eq(a->name, b->name))
                return error_set(ret_error, ERROR_INVALID, 0,
                                 "containers[%zu] and containers[%zu] are both named '%s'", j, i,
                                 a->name);
            if (a->id && str_eq(a->id, b->id))
                return error_set(ret_error, ERROR_INVALID, 0,
                                 "containers[%zu] and containers[%zu] have the same id", j, i);
        }
    }
    return 0;
}

int pod_restart_check(const struct pod_spec *spec, enum restart restart, struct error **ret_error)
{
    if (!spec->ttl.given || restart != RESTART_ALWAYS)
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0,
                     "'ttlSecondsAfterFinished' and the restart policy 'always' exclude each "
                     "other: what is always started again never finishes");
}

static int ttl_check(const struct pod_spec *spec, struct error **ret_error)
{
    if (pod_restart_check(spec, spec->restart, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < spec->container_count; i++)
        if (pod_restart_check(spec, spec->containers[i].restart, ret_error) < 0)
            return -1;
    return 0;
}

int pod_spec_check(const struct pod_spec *spec, const struct spec_limits *limits,
                   struct error **ret_error)
{
    if (spec->id && name_check("pod name", spec->id, ret_error) < 0)
        return -1;
    if (spec->hostname && hostname_check(spec->hostname, ret_error) < 0)
        return -1;
    if (resource_check(spec, limits, ret_error) < 0 || log_check(spec, ret_error) < 0 ||
        ttl_check(spec, ret_error) < 0)
        return -1;
    return unique_check(spec, ret_error);
}
