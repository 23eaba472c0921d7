/* info, version: the daemon and its settings. */
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "husk/cli.h"

enum info_format {
    INFO_TEXT,
    INFO_NUMBER,
    INFO_SIZE,
    INFO_PAIRS,
    INFO_OBJECT,
    INFO_SIZES,
    INFO_POOL
};

/* hyperctl's lines first, in its words and order; then ours. Fields that are missing are left
 * out. */
static const struct {
    const char *field, *title;
    enum info_format format;
    bool ours;
} INFO[] = {
    {"Images", "Images", INFO_NUMBER, false},
    {"Containers", "Containers", INFO_NUMBER, false},
    {"Pods", "PODs", INFO_NUMBER, false},
    {"Driver", "Storage Driver", INFO_TEXT, false},
    {"DriverStatus", "", INFO_PAIRS, false},
    {"DockerRootDir", "Hyper Root Dir", INFO_TEXT, false},
    {"IndexServerAddress", "Index Server Address", INFO_TEXT, false},
    {"ExecutionDriver", "Execution Driver", INFO_TEXT, false},
    {"MemTotal", "Total Memory", INFO_SIZE, false},
    {"Operating System", "Operating System", INFO_TEXT, false},
    {"VMs", "VMs", INFO_NUMBER, true},
    {"Version", "Version", INFO_TEXT, true},
    {"Accel", "Acceleration", INFO_TEXT, true},
    {"AccelReason", "  Because", INFO_TEXT, true},
    {"Templates", "Templates", INFO_OBJECT, true},
    {"Pool", "Pool", INFO_POOL, true},
    {"Machine", "Machine", INFO_TEXT, true},
    {"Kernel", "Kernel", INFO_TEXT, true},
    {"Qemu", "QEMU", INFO_TEXT, true},
    {"RootDir", "Root Dir", INFO_TEXT, true},
    {"Socket", "Socket", INFO_TEXT, true},
    {"MemPrivate", "Private Memory", INFO_SIZE, true},
    {"DiskUse", "Disk Use", INFO_SIZES, true},
    {"Settings", "Settings", INFO_OBJECT, true},
};

static char *value_text(const json_t *value)
{
    return json_is_string(value) ? xstrdup(json_string_value(value))
                                 : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void print_text(const char *title, const json_t *value)
{
    CLEANUP_FREE char *text = value_text(value);
    if (!str_empty(text))
        printf("%s: %s\n", title, text);
}

static void print_size(const char *title, const json_t *value)
{
    char text[32];
    size_format(text, sizeof(text), json_number_value(value));
    printf("%s: %s\n", title, text);
}

static void print_pairs(const char *title, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *pair = json_array_get(value, i);
        CLEANUP_FREE char *name = value_text(json_array_get(pair, 0));
        CLEANUP_FREE char *text = value_text(json_array_get(pair, 1));
        printf("  %s: %s\n", str_or(name, ""), str_or(text, ""));
    }
}

static void print_object(const char *title, const json_t *value)
{
    const char *name;
    json_t *member;
    printf("%s:\n", title);
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        CLEANUP_FREE char *text = value_text(member);
        printf("  %s: %s\n", name, text);
    }
}

static void print_sizes(const char *title, const json_t *value)
{
    const char *name;
    json_t *member;
    printf("%s:\n", title);
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        char text[32];
        size_format(text, sizeof(text), json_number_value(member));
        printf("  %s: %s\n", name, text);
    }
}

/* A line for each shape of the idle pool. */
static void print_pool(const char *title, const json_t *value)
{
    if (json_array_size(value))
        printf("%s:\n", title);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *shape = json_array_get(value, i);
        const char *image = json_text(shape, "image");
        printf("  %dx%dMiB%s%s: ", (int)json_integer_value(json_object_get(shape, "cpu")),
               (int)json_integer_value(json_object_get(shape, "memory")), *image ? " of " : "",
               image);
        if (json_is_true(json_object_get(shape, "waits")))
            printf("waits for the image, which is not here\n");
        else
            printf("%d of %d idle\n", (int)json_integer_value(json_object_get(shape, "idle")),
                   (int)json_integer_value(json_object_get(shape, "number")));
    }
}

static void (*const INFO_PRINT[])(const char *title, const json_t *value) = {
    [INFO_TEXT] = print_text,   [INFO_NUMBER] = print_text,   [INFO_SIZE] = print_size,
    [INFO_PAIRS] = print_pairs, [INFO_OBJECT] = print_object, [INFO_SIZES] = print_sizes,
    [INFO_POOL] = print_pool,
};

int cmd_info(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *info = NULL;
    CLEANUP_JSON json_t *usage = NULL;
    if (daemon_json(cli, "GET", "/info", NULL, &info, ret_error) < 0)
        return -1;
    /* Whoever looks here because something is wrong is told the rest. */
    if (!cli->hyper && daemon_json(cli, "GET", "/usage", NULL, &usage, NULL) == 0)
        json_object_set(info, "DiskUse", json_object_get(usage, "disk"));
    if (str_eq(args_text(args, "output"), "json")) {
        CLEANUP_FREE char *text = json_dumps(info, JSON_INDENT(2));
        puts(text);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(INFO); i++) {
        const json_t *value = json_object_get(info, INFO[i].field);
        if (value && !(INFO[i].ours && cli->hyper))
            INFO_PRINT[INFO[i].format](INFO[i].title, value);
    }
    return 0;
}

/* The client's part never fails: it is asked when something is wrong. */
int cmd_version(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *version = NULL;
    CLEANUP_ERROR struct error *error = NULL;
    if (cli->hyper) {
        printf("The %s version is %s\n", cli->program, HUSK_VERSION);
        return 0;
    }
    printf("Client: husk %s\n", HUSK_VERSION);
    if (daemon_json(cli, "GET", "/version", NULL, &version, &error) < 0)
        printf("Server: %s\n", error_text(error));
    else
        printf("Server: huskd %s (API %s)\n", json_text(version, "Version"),
               json_text(version, "ApiVersion"));
    return 0;
}
