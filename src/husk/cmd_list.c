/* list, images, inspect, events: what there is and what happened. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/table.h"

enum { COLUMNS_MAX = 6, STATUSES_MAX = 6, SHORT_ID = 12 };

/* ---- what can be listed --------------------------------------------------------------------- */

/* The columns are hyperctl's: programs read these tables. */
static const struct kind {
    const char *item;
    const char *titles[COLUMNS_MAX]; /* NULL-terminated */
    const char *fields[COLUMNS_MAX]; /* of an item of format=json, column by column */
    const char *id;                  /* the field that -q prints */
    size_t theirs;                   /* columns that hyperctl has, too; 0: all */
    const char *statuses[STATUSES_MAX + 1];
} KINDS[] = {
    {"pod",
     {"POD ID", "POD Name", "VM name", "Status"},
     {"id", "name", "vm", "status"},
     "id",
     0,
     {"pending", "running", "paused", "stopping", "succeeded", "failed"}},
    {"container",
     {"Container ID", "Name", "POD ID", "Status"},
     {"id", "name", "pod", "status"},
     "id",
     0,
     {"pending", "running", "succeeded", "failed"}},
    {"vm",
     {"VM name", "Status", "For image"},
     {"id", "status", "image"},
     "id",
     2,
     {"booting", "idle", "associated", "paused", "stopping"}},
};

static const struct kind *kind_find(const char *item)
{
    for (size_t i = 0; i < ARRAY_SIZE(KINDS); i++)
        if (strcasecmp(KINDS[i].item, item) == 0)
            return &KINDS[i];
    return NULL;
}

/* ---- filters -------------------------------------------------------------------------------- */

/* "label=tier=web" or "label=tier". */
static bool label_matches(const json_t *item, const char *wanted)
{
    CLEANUP_FREE char *key = xstrndup(wanted, strcspn(wanted, "="));
    const json_t *label = json_object_get(json_object_get(item, "labels"), key);
    if (!wanted[strlen(key)])
        return label != NULL;
    return str_eq(json_string_value(label), wanted + strlen(key) + 1);
}

static bool name_matches(const json_t *item, const char *wanted)
{
    const json_t *names = json_object_get(item, "names");
    for (size_t i = 0; i < json_array_size(names); i++)
        if (fnmatch(wanted, json_string_value(json_array_get(names, i)), 0) == 0)
            return true;
    return fnmatch(wanted, str_or(json_text(item, "name"), json_text(item, "id")), 0) == 0;
}

static bool filter_matches(const json_t *item, const char *filter)
{
    const char *equals = strchr(filter, '=');
    CLEANUP_FREE char *key = xstrndup(filter, (size_t)(equals - filter));
    if (strcmp(key, "label") == 0)
        return label_matches(item, equals + 1);
    if (strcmp(key, "name") == 0)
        return name_matches(item, equals + 1);
    if (strcmp(key, "status") == 0)
        return fnmatch(equals + 1, json_text(item, "status"), 0) == 0;
    return true; /* pod and vm are looked at by the daemon */
}

/* Refuses a filter that nothing is known of, instead of listing nothing. */
static int filters_check(char *const *filters, const char *const *known, struct error **ret_error)
{
    STRV_FOREACH(filter, filters) {
        CLEANUP_FREE char *key = xstrndup(*filter, strcspn(*filter, "="));
        if (strv_contains(known, key))
            continue;
        CLEANUP_FREE char *all = strv_join(known, ", ");
        return error_set(ret_error, ERROR_INVALID, 0, "there is no filter '%s', only %s", key, all);
    }
    return 0;
}

/* Refuses a pattern for `key` that none of these can match. */
static int values_check(char *const *filters, const char *key, const char *const *possible,
                        struct error **ret_error)
{
    STRV_FOREACH(filter, filters) {
        size_t length = strlen(key);
        bool fits = strncmp(*filter, key, length) != 0 || (*filter)[length] != '=';
        for (const char *const *value = possible; !fits && *value; value++)
            fits = fnmatch(*filter + length + 1, *value, 0) == 0;
        if (fits)
            continue;
        CLEANUP_FREE char *all = strv_join(possible, ", ");
        return error_set(ret_error, ERROR_INVALID, 0,
                         "filter '%s' matches nothing: %s is one of %s", *filter, key, all);
    }
    return 0;
}

static bool item_wanted(const json_t *item, char *const *filters)
{
    STRV_FOREACH(filter, filters)
        if (!filter_matches(item, *filter))
            return false;
    return true;
}

/* The owner that the list is narrowed to: by an option of that name, or by a filter. */
static const char *owner_wanted(const struct args *args, char *const *filters, const char *key)
{
    const char *owner = args_text(args, key);
    STRV_FOREACH(filter, filters)
        if (str_starts(*filter, key) && (*filter)[strlen(key)] == '=')
            owner = *filter + strlen(key) + 1;
    return owner;
}

/* The items of that kind which the options let through; a new reference. */
static int items_get(struct cli *cli, const struct args *args, const char *item, json_t **ret,
                     struct error **ret_error)
{
    static const char *const known[] = {"status", "name", "label", "pod", "vm", NULL};
    static const char *const of_images[] = {"name", NULL};
    CLEANUP_JSON json_t *answer = NULL;
    CLEANUP_STRV char **filters = args_all(args, "filter");
    CLEANUP_FREE char *target = http_target("/list", "item", item, "format", "json", "pod",
                                            owner_wanted(args, filters, "pod"), "vm",
                                            owner_wanted(args, filters, "vm"), NULL);
    const struct kind *kind = kind_find(item);
    if (filters_check(filters, kind ? known : of_images, ret_error) < 0 ||
        (kind && values_check(filters, "status", kind->statuses, ret_error) < 0) ||
        daemon_json(cli, "GET", target, NULL, &answer, ret_error) < 0)
        return -1;
    const json_t *items = json_object_get(answer, "items");
    *ret = json_array();
    for (size_t i = 0; i < json_array_size(items); i++)
        if (item_wanted(json_array_get(items, i), filters))
            json_array_append(*ret, json_array_get(items, i));
    return 0;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

/* Puts SizeRw and SizeRootFs into containers, or the sums of their containers into pods. */
static void sizes_put(json_t *item, const json_t *usage, const char *key)
{
    const json_t *containers = json_object_get(usage, "containers");
    json_int_t written = 0, all = 0;
    bool any = false;
    for (size_t i = 0; i < json_array_size(containers); i++) {
        const json_t *ctr = json_array_get(containers, i);
        if (!str_eq(json_text(ctr, key), json_text(item, "id")))
            continue;
        any = true;
        written += json_integer_value(json_object_get(ctr, "SizeRw"));
        all += json_integer_value(json_object_get(ctr, "SizeRootFs"));
    }
    if (!any) /* it has gone, or its layer is not made yet */
        return;
    json_object_set_new(item, "SizeRw", json_integer(written));
    json_object_set_new(item, "SizeRootFs", json_integer(all));
}

static int sizes_get(struct cli *cli, const char *item, json_t *items, struct error **ret_error)
{
    CLEANUP_JSON json_t *usage = NULL;
    const char *key = strcmp(item, "pod") == 0 ? "pod" : "id";
    if (strcmp(item, "pod") != 0 && strcmp(item, "container") != 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "the size of each %s is not known: -s is for pods and containers", item);
    if (daemon_json(cli, "GET", "/usage", NULL, &usage, ret_error) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(items); i++)
        sizes_put(json_array_get(items, i), usage, key);
    return 0;
}

/* "1.11 MB (virtual 5.62 MB)", as docker has it. */
static char *size_cell(const json_t *item)
{
    char written[32], all[32];
    if (!json_object_get(item, "SizeRw"))
        return xstrdup("");
    size_format(written, sizeof(written), json_number_value(json_object_get(item, "SizeRw")));
    size_format(all, sizeof(all), json_number_value(json_object_get(item, "SizeRootFs")));
    return str_printf("%s (virtual %s)", written, all);
}

/* ---- printing ------------------------------------------------------------------------------- */

static void json_print(const json_t *json)
{
    CLEANUP_FREE char *text = json_dumps(json, JSON_INDENT(2) | JSON_ENCODE_ANY);
    puts(text);
}

static bool wants_json(const struct args *args)
{
    return str_eq(args_text(args, "output"), "json");
}

static void items_print_table(const struct kind *kind, const json_t *items, bool sizes, bool hyper)
{
    CLEANUP_TABLE struct table table = {0};
    const char *titles[COLUMNS_MAX] = {0};
    size_t fields = 0, max = hyper && kind->theirs ? kind->theirs : COLUMNS_MAX - 1;
    for (; fields < max && kind->titles[fields]; fields++)
        titles[fields] = kind->titles[fields];
    titles[fields] = "Size";
    table.columns = fields + sizes;
    table_row(&table, titles);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const char *cells[COLUMNS_MAX];
        CLEANUP_FREE char *size = size_cell(json_array_get(items, i));
        for (size_t c = 0; c < fields; c++)
            cells[c] = json_text(json_array_get(items, i), kind->fields[c]);
        cells[fields] = size;
        table_row(&table, cells);
    }
    table_print(&table, stdout);
}

static void ids_print(const json_t *items, const char *field)
{
    for (size_t i = 0; i < json_array_size(items); i++)
        puts(json_text(json_array_get(items, i), field));
}

/* ---- images --------------------------------------------------------------------------------- */

static void image_id_short(char *ret, const char *id)
{
    const char *colon = strchr(id, ':');
    snprintf(ret, SHORT_ID + 1, "%s", colon ? colon + 1 : id);
}

/* "2017-07-14 02:40:00" of RFC 3339 or Unix seconds, in local time. */
static void image_time(char *ret, size_t size, const json_t *created)
{
    struct tm tm = {0};
    time_t when = (time_t)json_integer_value(created);
    const char *text = json_string_value(created);
    if (text && strptime(text, "%Y-%m-%dT%H:%M:%S", &tm))
        when = timegm(&tm);
    localtime_r(&when, &tm);
    strftime(ret, size, "%Y-%m-%d %H:%M:%S", &tm);
}

/* A name's parts: what is before its tag or digest, without the usual host as everyone leaves it
 * out, and the rest. */
static void name_split(const char *name, char **ret_repository, const char **ret_rest)
{
    const char *slash = strrchr(name, '/'), *at = strchr(name, '@');
    const char *end = at ? at : strchr(slash ? slash : name, ':');
    static const char *const usual[] = {"docker.io/library/", "docker.io/"};
    if (!end)
        end = name + strlen(name);
    for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
        if (str_starts(name, usual[i]))
            name += strlen(usual[i]);
    *ret_repository = xstrndup(name, (size_t)(end - name));
    *ret_rest = *end ? end + 1 : "<none>";
}

/* The digest that the image has in that repository; "<none>" if it has none. */
static const char *image_digest(const json_t *image, const char *repository)
{
    const json_t *digests = json_object_get(image, "digests");
    size_t length = strlen(repository);
    for (size_t i = 0; i < json_array_size(digests); i++) {
        const char *name = json_string_value(json_array_get(digests, i));
        if (strncmp(name, repository, length) == 0 && name[length] == '@')
            return name + length + 1;
    }
    return "<none>";
}

static void image_row(struct table *table, const json_t *image, const char *repository,
                      const char *tag)
{
    char id[SHORT_ID + 1], created[32], size[32];
    image_id_short(id, json_text(image, "id"));
    image_time(created, sizeof(created), json_object_get(image, "created"));
    size_format(size, sizeof(size), json_number_value(json_object_get(image, "size")));
    const char *cells[] = {repository, tag, id, created, size};
    const char *more[] = {repository, tag, image_digest(image, repository), id, created, size};
    table_row(table, table->columns == ARRAY_SIZE(more) ? more : cells);
}

/* A row for each name by tag; of an image without one, a row for each repository. */
static void image_rows(struct table *table, const json_t *image)
{
    const json_t *names = json_object_get(image, "names");
    const json_t *digests = json_object_get(image, "digests");
    const json_t *shown = json_array_size(names) ? names : digests;
    for (size_t i = 0; i < json_array_size(shown); i++) {
        CLEANUP_FREE char *repository = NULL;
        const char *rest;
        name_split(json_string_value(json_array_get(shown, i)), &repository, &rest);
        image_row(table, image, repository, shown == names ? rest : "<none>");
    }
    if (json_array_size(shown) == 0)
        image_row(table, image, "<none>", "<none>");
}

/* Of the whole name, or of its repository. */
static bool reference_matches(const json_t *image, const char *wanted)
{
    const json_t *names = json_object_get(image, "names");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i)), *rest;
        CLEANUP_FREE char *repository = NULL;
        name_split(name, &repository, &rest);
        if (fnmatch(wanted, name, 0) == 0 || fnmatch(wanted, repository, 0) == 0)
            return true;
    }
    return false;
}

/* reference=PATTERN; dangling=true|false. */
static bool image_matches(const json_t *image, const char *filter)
{
    const char *wanted = strchr(filter, '=') + 1;
    if (str_starts(filter, "dangling="))
        return (json_array_size(json_object_get(image, "names")) == 0) ==
               (strcmp(wanted, "true") == 0);
    return reference_matches(image, wanted);
}

/* The images that the filters, and a name that was typed, let through; a new reference. */
static int images_get(struct cli *cli, const struct args *args, json_t **ret,
                      struct error **ret_error)
{
    static const char *const known[] = {"reference", "dangling", NULL};
    static const char *const truths[] = {"true", "false", NULL};
    const char *name = args->verb->id == VERB_IMAGES ? args->words[0] : NULL;
    CLEANUP_JSON json_t *answer = NULL;
    CLEANUP_STRV char **filters = args_all(args, "filter");
    if (filters_check(filters, known, ret_error) < 0 ||
        values_check(filters, "dangling", truths, ret_error) < 0 ||
        daemon_json(cli, "GET", "/list?item=image&format=json", NULL, &answer, ret_error) < 0)
        return -1;
    const json_t *items = json_object_get(answer, "items");
    *ret = json_array();
    for (size_t i = 0; i < json_array_size(items); i++) {
        json_t *image = json_array_get(items, i);
        bool wanted = !name || reference_matches(image, name);
        STRV_FOREACH(filter, filters)
            wanted = wanted && image_matches(image, *filter);
        if (wanted)
            json_array_append(*ret, image);
    }
    return 0;
}

static int images_print(const struct args *args, const json_t *images)
{
    static const char *const titles[] = {"REPOSITORY", "TAG", "IMAGE ID", "CREATED",
                                         "VIRTUAL SIZE"};
    static const char *const with_digests[] = {"REPOSITORY", "TAG",     "DIGEST",
                                               "IMAGE ID",   "CREATED", "VIRTUAL SIZE"};
    bool digests = args_has(args, "digests");
    CLEANUP_TABLE struct table table = {.columns = digests ? ARRAY_SIZE(with_digests)
                                                           : ARRAY_SIZE(titles)};
    if (wants_json(args)) {
        json_print(images);
        return 0;
    }
    if (!args_has(args, "quiet"))
        table_row(&table, digests ? with_digests : titles);
    for (size_t i = 0; i < json_array_size(images); i++) {
        const json_t *image = json_array_get(images, i);
        char id[SHORT_ID + 1];
        image_id_short(id, json_text(image, "id"));
        if (args_has(args, "quiet"))
            puts(id);
        else
            image_rows(&table, image);
    }
    table_print(&table, stdout);
    return 0;
}

int cmd_images(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *images = NULL;
    if (images_get(cli, args, &images, ret_error) < 0)
        return -1;
    return images_print(args, images);
}

int cmd_list(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *items = NULL;
    const char *item = str_or(args->words[0], "pod");
    const struct kind *kind = kind_find(item);
    bool sizes = args_has(args, "size");
    if (strcasecmp(item, "image") == 0) {
        if (sizes)
            return error_set(ret_error, ERROR_INVALID, 0,
                             "a list of images has their sizes: -s is for pods and containers");
        if (items_get(cli, args, "image", &items, ret_error) < 0)
            return -1;
        return images_print(args, items);
    }
    if (!kind && cli->hyper)
        return error_set(ret_error, ERROR_INVALID, 0, "Error, the %s can not support %s list!",
                         cli->program, item);
    if (!kind)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "there is no list of '%s', but of pod, container, vm and image", item);
    if (items_get(cli, args, kind->item, &items, ret_error) < 0 ||
        (sizes && sizes_get(cli, kind->item, items, ret_error) < 0))
        return -1;
    if (wants_json(args))
        json_print(items);
    else if (args_has(args, "quiet"))
        ids_print(items, kind->id);
    else
        items_print_table(kind, items, sizes, cli->hyper);
    return 0;
}

/* ---- inspect -------------------------------------------------------------------------------- */

/* Into a container, or those of a pod. */
static int inspect_sizes(struct cli *cli, json_t *object, struct error **ret_error)
{
    CLEANUP_JSON json_t *usage = NULL;
    json_t *containers = json_object_get(object, "containers");
    bool pod = str_eq(json_text(object, "kind"), "pod");
    bool container = str_eq(json_text(object, "kind"), "container");
    CLEANUP_FREE char *target =
        http_target("/usage", "container", container ? json_text(object, "id") : NULL, NULL);
    if (!pod && !container)
        return 0;
    if (daemon_json(cli, "GET", target, NULL, &usage, ret_error) < 0)
        return -1;
    if (container)
        sizes_put(object, usage, "id");
    for (size_t i = 0; pod && i < json_array_size(containers); i++)
        sizes_put(json_array_get(containers, i), usage, "id");
    return 0;
}

/* Prints an array of what was found, as one JSON text, and reports what was not. */
int cmd_inspect(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *found = json_array();
    int status = 0;
    STRV_FOREACH(name, args->words) {
        CLEANUP_ERROR struct error *error = NULL;
        CLEANUP_FREE char *target = http_target("/inspect", "name", *name, NULL);
        json_t *object = NULL;
        if (daemon_json(cli, "GET", target, NULL, &object, &error) == 0) {
            json_array_append_new(found, object);
            if (!args_has(args, "size") || inspect_sizes(cli, object, &error) == 0)
                continue;
        }
        note_print(cli, "%s", error_text(error));
        status = EXIT_HUSK_FAILED;
    }
    if (json_array_size(found) || status == 0)
        json_print(found);
    return status;
}

/* ---- events --------------------------------------------------------------------------------- */

static void event_print(const struct args *args, const char *line, char *const *filters)
{
    CLEANUP_JSON json_t *event = json_loads(line, 0, NULL);
    STRV_FOREACH(filter, filters) {
        CLEANUP_FREE char *key = xstrndup(*filter, strcspn(*filter, "="));
        if (fnmatch(*filter + strlen(key) + 1, json_text(event, key), 0) != 0)
            return;
    }
    if (wants_json(args) || !event)
        puts(line);
    else
        printf("%s %s %s %s%s%s\n", json_text(event, "time"), json_text(event, "kind"),
               str_or(json_text(event, "name"), json_text(event, "id")), json_text(event, "reason"),
               *json_text(event, "message") ? ": " : "", json_text(event, "message"));
}

/* Prints the whole lines at the front of `lines`. */
static void events_drain(const struct args *args, struct buf *lines, char *const *filters)
{
    uint8_t *end;
    while (lines->len && (end = memchr(lines->data, '\n', lines->len))) {
        *end = 0;
        if (end != lines->data)
            event_print(args, (const char *)lines->data, filters);
        buf_consume(lines, (size_t)(end - lines->data) + 1);
    }
    fflush(stdout);
}

static int events_copy(struct cli *cli, const struct args *args, char *const *filters,
                       struct error **ret_error)
{
    enum { EVENT_MAX = 1 << 20 };
    CLEANUP_BUF struct buf lines = {0};
    for (;;) {
        char *data;
        size_t size;
        if (http_read(&cli->http, &data, &size, ret_error) < 0)
            return -1;
        if (size == 0)
            return 0;
        buf_append(&lines, data, size);
        events_drain(args, &lines, filters);
        if (lines.len > EVENT_MAX)
            return error_set(ret_error, ERROR_TOO_LARGE, 0, "an event is over %d bytes", EVENT_MAX);
    }
}

int cmd_events(struct cli *cli, const struct args *args, struct error **ret_error)
{
    static const char *const known[] = {"kind", "id", "name", "reason", NULL};
    static const char *const kinds[] = {"pod", "container", "vm", "image", NULL};
    CLEANUP_STRV char **filters = args_all(args, "filter");
    CLEANUP_FREE char *since = NULL;
    if (filters_check(filters, known, ret_error) < 0 ||
        values_check(filters, "kind", kinds, ret_error) < 0 ||
        time_argument(args_text(args, "since"), &since, ret_error) < 0)
        return -1;
    CLEANUP_FREE char *target = http_target("/events", "since", since, "follow",
                                            args_has(args, "follow") ? "true" : NULL, NULL);
    struct http_request request = {.method = "GET", .target = target};
    if (http_begin(&cli->http, &request, ret_error) < 0 || daemon_check(&cli->http, ret_error) < 0)
        return -1;
    return events_copy(cli, args, filters, ret_error);
}
