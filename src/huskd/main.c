/* huskd: the daemon. It reads its settings, takes its root and its socket, and serves until it is
 * asked to end.
 */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "huskd/check.h"
#include "huskd/daemon.h"
#include "huskd/settings.h"

enum { EXIT_USAGE = 2, HEAP_KEPT = 64 << 10 /* bytes; what is free beyond goes back */ };

enum task { SERVE, CHECK, HELP, VERSION, SETTINGS, STEPS };

static const struct {
    const char *flag, *help;
    enum task task;
} tasks[] = {
    {"--check", "says whether this host has what the settings ask for", CHECK},
    {"--settings", "prints a huskd.conf with all settings and their defaults", SETTINGS},
    {"--steps", "prints the steps at which HUSK_CRASH_AT can kill the daemon, for tests", STEPS},
    {"--version", "prints the version", VERSION},
    {"--help", "prints this", HELP},
};

static void print_help(void)
{
    puts("usage: huskd [--config FILE] [--SETTING=VALUE …]\n\n"
         "huskd runs pods, each in a virtual machine of its own.\n\n"
         "  --config FILE\n        the file to read settings from; /etc/husk/huskd.conf");
    for (size_t i = 0; i < ARRAY_SIZE(tasks); i++)
        printf("  %s\n        %s\n", tasks[i].flag, tasks[i].help);
    puts("\nsettings, which may also stand in the file, and their defaults:\n");
    settings_print_help(stdout);
}

/* "--name=value" or "--name", "value". Returns how many words it took, 0 if it is no flag. */
static int flag_split(char **words, char **ret_name, const char **ret_value)
{
    if (!str_starts(words[0], "--"))
        return 0;
    const char *equals = strchr(words[0], '=');
    *ret_name =
        equals ? xstrndup(words[0] + 2, (size_t)(equals - words[0] - 2)) : xstrdup(words[0] + 2);
    *ret_value = equals ? equals + 1 : words[1];
    return equals ? 1 : 2;
}

static bool task_flag(const char *word, enum task *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(tasks); i++)
        if (str_eq(tasks[i].flag, word)) {
            *ret = tasks[i].task;
            return true;
        }
    return false;
}

/* Calls `set` for each flag with a value; the others name a task. */
static int flags_each(char **words, enum task *task,
                      int (*set)(struct settings *s, const char *name, const char *value,
                                 struct error **ret_error),
                      struct settings *settings, struct error **ret_error)
{
    while (*words) {
        CLEANUP_FREE char *name = NULL;
        const char *value;
        if (task_flag(*words, task)) {
            words++;
            continue;
        }
        int used = flag_split(words, &name, &value);
        if (!used)
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not understood, see --help",
                             *words);
        if (!settings_has(name) && !str_eq(name, "config"))
            return error_set(ret_error, ERROR_INVALID, 0, "there is no flag '--%s', see --help",
                             name);
        if (!value)
            return error_set(ret_error, ERROR_INVALID, 0, "'%s' needs a value", *words);
        if (set(settings, name, value, ret_error) < 0)
            return -1;
        words += used;
    }
    return 0;
}

/* The file comes before the flags, wherever --config stands. */
static const char *config_file;

static int set_config(struct settings *s, const char *name, const char *value,
                      struct error **ret_error)
{
    if (str_eq(name, "config"))
        config_file = value;
    return 0;
}

static int set_other(struct settings *s, const char *name, const char *value,
                     struct error **ret_error)
{
    return str_eq(name, "config") ? 0 : settings_set(s, name, value, ret_error);
}

static int settings_read(char **words, struct settings *settings, enum task *ret_task,
                         struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *usual = settings_default_file();
    if (flags_each(words, ret_task, set_config, settings, ret_error) < 0)
        return -1;
    if (settings_load(settings, config_file ? config_file : usual, &error) < 0 &&
        (config_file || error->kind != ERROR_NOT_FOUND))
        return error_move(ret_error, &error);
    if (flags_each(words, ret_task, set_other, settings, ret_error) < 0)
        return -1;
    return settings_check(settings, ret_error);
}

static enum log_level level_of(const char *name)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {{"error", LOG_LEVEL_ERROR},
                  {"warning", LOG_LEVEL_WARNING},
                  {"info", LOG_LEVEL_INFO},
                  {"debug", LOG_LEVEL_DEBUG}};
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
        if (str_eq(levels[i].name, name))
            return levels[i].level;
    return LOG_LEVEL_INFO;
}

/* One thread needs one arena. Sockets of many clients and keepers need descriptors. */
static void process_prepare(void)
{
    struct rlimit files;
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
    umask(066); /* nothing that others can read; they may pass through directories */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int serve(const struct settings *settings)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct daemon *daemon;
    process_prepare();
    if (daemon_new(settings, &daemon, &error) < 0) {
        log_error("%s", error_text(error));
        return 1;
    }
    int status = daemon_run(daemon);
    daemon_free(daemon);
    return status;
}

int main(int argc, char **argv)
{
    CLEANUP_ERROR struct error *error = NULL;
    struct settings settings;
    enum task task = SERVE;
    int status = 0;
    settings_init(&settings);
    if (settings_read(argv + 1, &settings, &task, &error) < 0) {
        fprintf(stderr, "huskd: %s\n", error_text(error));
        settings_done(&settings);
        return EXIT_USAGE;
    }
    log_open("huskd", level_of(settings.log_level));
    if (task == HELP)
        print_help();
    else if (task == VERSION)
        puts("huskd " HUSK_VERSION);
    else if (task == SETTINGS)
        settings_print_sample(stdout);
    else if (task == STEPS)
        daemon_print_steps();
    else if (task == CHECK)
        status = check_host(&settings, stdout) ? 1 : 0;
    else
        status = serve(&settings);
    settings_done(&settings);
    return status;
}
