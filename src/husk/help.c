/* help and completion: the tables, as text. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/table.h"

enum {
    TEXT_COLUMNS = 79,
    OPTION_COLUMN = 30, /* where the help of an option begins */
    VERB_COLUMN = 14,
};

/* ---- text ----------------------------------------------------------------------------------- */

/* Words up to TEXT_COLUMNS; the first line goes on at column `at`, the others begin at `indent`. */
static void print_wrapped(const char *text, size_t size, size_t at, size_t indent)
{
    const char *end = text + size;
    bool first = true;
    while (text < end) {
        size_t word = 0;
        while (text + word < end && text[word] != ' ')
            word++;
        CLEANUP_FREE char *copy = xstrndup(text, word);
        size_t width = text_width(copy);
        if (!first && at + 1 + width > TEXT_COLUMNS) {
            printf("\n%*s", (int)indent, "");
            at = indent;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        fputs(copy, stdout);
        at += width;
        first = false;
        text += word;
        while (text < end && *text == ' ')
            text++;
    }
    putchar('\n');
}

static void print_paragraphs(const char *text)
{
    while (*text) {
        size_t size = strcspn(text, "\n");
        putchar('\n');
        print_wrapped(text, size, 0, 0);
        text += size + (text[size] == '\n');
    }
}

/* "  -e, --env KEY[=VALUE]". */
static char *option_text(const struct option *option)
{
    char letter[] = "-x, ";
    letter[1] = option->letter;
    if (!option->letter)
        memset(letter, ' ', strlen("-x, "));
    return str_printf("  %s--%s%s%s", letter, option->name, option->argument ? " " : "",
                      option->argument ? option->argument : "");
}

static void print_option(const struct option *option)
{
    CLEANUP_FREE char *left = option_text(option);
    size_t width = text_width(left);
    fputs(left, stdout);
    if (width + 2 > OPTION_COLUMN) {
        putchar('\n');
        width = 0;
    }
    printf("%*s", (int)(OPTION_COLUMN - width), "");
    print_wrapped(option->help, strlen(option->help), OPTION_COLUMN, OPTION_COLUMN);
}

static void print_examples(const struct verb *verb)
{
    const char *text = verb->examples;
    printf("\nExamples:\n");
    while (*text) {
        size_t size = strcspn(text, "\n");
        const char *gap = memmem(text, size, "  ", 2);
        size_t command = gap ? (size_t)(gap - text) : size;
        printf("  # %.*s\n  %.*s\n", (int)(size - command - 2), text + command + 2, (int)command,
               text);
        text += size + (text[size] == '\n');
    }
}

void help_verb(const struct verb *verb)
{
    const char *blank = *verb->arguments ? " " : "";
    printf("Usage: husk %s%s%s\n", verb->name, blank, verb->arguments);
    if (*verb->alias)
        printf("       husk %s%s%s\n", verb->alias, blank, verb->arguments);
    printf("\n%c%s.\n", toupper((unsigned char)*verb->help), verb->help + 1);
    print_paragraphs(verb->details);
    printf("\nOptions:\n");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (option_is_of(&OPTIONS[i], verb->id))
            print_option(&OPTIONS[i]);
    print_examples(verb);
}

void help_all(const struct cli *cli)
{
    printf("Usage: %s [--socket PATH] VERB [OPTIONS] [ARGUMENTS]\n\n"
           "Runs pods, each in a virtual machine of its own.\n\nVerbs:\n",
           cli->program);
    for (int id = 0; id < VERB_COUNT; id++) {
        const struct verb *verb = verb_get((enum verb_id)id);
        printf("  %-*s", VERB_COLUMN - 2, verb->name);
        print_wrapped(verb->help, strlen(verb->help), VERB_COLUMN, VERB_COLUMN);
    }
    printf("\n'%s help VERB' explains a verb.\n", cli->program);
}

/* ---- the tables for programs ---------------------------------------------------------------- */

static void dump_field(const char *text, char end)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", stdout);
        else
            putchar(*text);
    }
    putchar(end);
}

/* verb NAME ALIAS ARGUMENTS OBJECT HELP DETAILS EXAMPLES, then its options: option VERB LETTER NAME
 * ARGUMENT HELP MANY. Line feeds are "\n". */
static void dump_verb(const struct verb *verb)
{
    static const char *const objects[] = {"none", "pod", "container", "vm", "image", "any"};
    const char *fields[] = {
        "verb",     verb->name,    verb->alias,   verb->arguments, objects[verb->object],
        verb->help, verb->details, verb->examples};
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        dump_field(fields[i], i + 1 < ARRAY_SIZE(fields) ? '\t' : '\n');
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &OPTIONS[i];
        if (option_is_of(o, verb->id))
            printf("option\t%s\t%.1s\t%s\t%s\t%s\t%s\n", verb->name, o->letter ? &o->letter : "",
                   o->name, o->argument ? o->argument : "", o->help, o->many ? "many" : "one");
    }
}

int cmd_help(struct cli *cli, const struct args *args, struct error **ret_error)
{
    const char *name = args->words[0];
    if (args_has(args, "dump")) {
        for (int id = 0; id < VERB_COUNT; id++)
            dump_verb(verb_get((enum verb_id)id));
        return 0;
    }
    if (!name) {
        help_all(cli);
        return 0;
    }
    const struct verb *verb = verb_find(name);
    if (!verb)
        return error_set(ret_error, ERROR_INVALID, 0, "there is no verb '%s'; see '%s help'", name,
                         cli->program);
    help_verb(verb);
    return 0;
}

/* ---- completion ----------------------------------------------------------------------------- */

static const char BASH_HEAD[] =
    "# bash completion of husk and hyperctl. Made from the tables by 'husk completion bash'.\n"
    "_husk_names()\n"
    "{\n"
    "    local kind\n"
    "    for kind in \"$@\"; do\n"
    "        if [[ $kind == container ]]; then\n"
    "            \"${COMP_WORDS[0]}\" list container 2>/dev/null | awk 'NR > 1 { print $2 }'\n"
    "        elif [[ $kind == image ]]; then\n"
    "            \"${COMP_WORDS[0]}\" images 2>/dev/null | awk 'NR > 1 && $2 != \"<none>\" { print "
    "$1 \":\" $2 }'\n"
    "        elif [[ $kind == template ]]; then\n"
    "            \"${COMP_WORDS[0]}\" template ls -q 2>/dev/null\n"
    "        else\n"
    "            \"${COMP_WORDS[0]}\" list \"$kind\" -q 2>/dev/null\n"
    "        fi\n"
    "    done | sort -u\n"
    "}\n"
    "\n"
    "_husk()\n"
    "{\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local verb= options= values= kinds= more= value i\n"
    "    local verbs=\"";

static const char BASH_CASES[] = "\"\n"
                                 "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                                 "        case ${COMP_WORDS[i]} in\n"
                                 "        --socket) ((i++)) ;;\n"
                                 "        -*) ;;\n"
                                 "        *) verb=${COMP_WORDS[i]}; break ;;\n"
                                 "        esac\n"
                                 "    done\n"
                                 "    case $verb in\n";

static const char BASH_TAIL[] =
    "    esac\n"
    "    if [[ -z $verb ]]; then\n"
    "        kinds=\"words:$verbs --socket --help\"\n"
    "    elif [[ $current == -* ]]; then\n"
    "        kinds=\"words:$options\"\n"
    "    elif [[ $previous != \"$verb\" && -n $more ]]; then\n"
    "        kinds=$more\n"
    "    fi\n"
    "    [[ -n $verb || $previous != --socket ]] || kinds=file\n"
    "    for value in $values; do\n"
    "        [[ -n $verb && ${value%%=*} == \"$previous\" ]] || continue\n"
    "        kinds=${value#*=}\n"
    "        kinds=${kinds//|/ }\n"
    "    done\n"
    "    if [[ $kinds == words:* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"${kinds#words:}\" -- \"$current\")\n"
    "        [[ $kinds != *=* ]] || compopt -o nospace 2>/dev/null\n"
    "    elif [[ $kinds == file ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
    "    elif [[ -n $kinds ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$(_husk_names $kinds)\" -- \"$current\")\n"
    "        type __ltrim_colon_completions &>/dev/null && __ltrim_colon_completions \"$current\"\n"
    "    fi\n"
    "}\n"
    "complete -F _husk husk hyperctl\n";

/* What the words after a verb may be, where its object alone does not tell; and those after the
 * first, where they are others. */
static const struct {
    enum verb_id verb;
    const char *kinds;
    const char *more;
} KINDS_OF_VERB[] = {
    {VERB_RUN, "image", ""},
    {VERB_CREATE, "image", ""},
    {VERB_RUN_POD, "file", ""},
    {VERB_CREATE_POD, "file", ""},
    {VERB_ATTACH, "container", ""},
    {VERB_COMPLETION, "words:bash", ""},
    {VERB_EXEC, "pod container", ""},
    {VERB_KILL, "pod container vm", ""},
    {VERB_LIST, "words:pod container vm image", ""},
    {VERB_INSPECT, "pod container vm image", ""},
    {VERB_IMAGES, "image", ""},
    {VERB_IMAGE, "words:check prune", "image"},
    {VERB_TEMPLATE, "words:build inspect ls rm", "template"},
    {VERB_HELP, "words:$verbs", ""},
};

/* The keys of --filter. */
static const struct {
    enum verb_id verb;
    const char *keys;
} FILTERS_OF_VERB[] = {
    {VERB_LIST, "words:status=|name=|label=|pod=|vm="},
    {VERB_IMAGES, "words:reference=|dangling="},
    {VERB_EVENTS, "words:kind=|id=|name=|reason="},
};

static const char *verb_kinds(const struct verb *verb, const char **ret_more)
{
    static const char *const kinds[] = {
        [OBJECT_NONE] = "", [OBJECT_POD] = "pod",     [OBJECT_CONTAINER] = "container",
        [OBJECT_VM] = "vm", [OBJECT_IMAGE] = "image", [OBJECT_ANY] = "pod container",
    };
    *ret_more = "";
    for (size_t i = 0; i < ARRAY_SIZE(KINDS_OF_VERB); i++)
        if (KINDS_OF_VERB[i].verb == verb->id) {
            *ret_more = KINDS_OF_VERB[i].more;
            return KINDS_OF_VERB[i].kinds;
        }
    return kinds[verb->object];
}

/* What the value of an option may be: a kind of name, "file", or words; "" if that is not known. */
static char *option_kinds(const struct verb *verb, const struct option *option)
{
    if (option->type == OPTION_FILE)
        return xstrdup("file");
    if (option->type == OPTION_WORD)
        return str_printf("words:%s", option->argument);
    if (option->type == OPTION_SIGNAL)
        return xstrdup("words:HUP|INT|QUIT|KILL|USR1|USR2|TERM|CONT|STOP");
    if (str_eq(option->argument, "POD") || str_eq(option->argument, "VM"))
        return xstrdup(str_eq(option->argument, "POD") ? "pod" : "vm");
    for (size_t i = 0; i < ARRAY_SIZE(FILTERS_OF_VERB); i++)
        if (strcmp(option->name, "filter") == 0 && FILTERS_OF_VERB[i].verb == verb->id)
            return xstrdup(FILTERS_OF_VERB[i].keys);
    return xstrdup("");
}

/* As they are typed. */
static void print_options(const struct verb *verb)
{
    const char *separator = "";
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &OPTIONS[i];
        if (!option_is_of(o, verb->id))
            continue;
        printf("%s--%s", separator, o->name);
        separator = " ";
        if (o->letter)
            printf(" -%c", o->letter);
    }
}

/* "--restart=words:never|onFailure|always": those that have a value. */
static void print_values(const struct verb *verb)
{
    const char *separator = "";
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &OPTIONS[i];
        if (!option_is_of(o, verb->id) || o->type == OPTION_FLAG)
            continue;
        CLEANUP_FREE char *kinds = option_kinds(verb, o);
        printf("%s--%s=%s", separator, o->name, kinds);
        separator = " ";
        if (o->letter)
            printf(" -%c=%s", o->letter, kinds);
    }
}

int cmd_completion(struct cli *cli, const struct args *args, struct error **ret_error)
{
    if (strcmp(args->words[0], "bash") != 0)
        return error_set(ret_error, ERROR_INVALID, 0, "no completion for '%s', only for bash",
                         args->words[0]);
    fputs(BASH_HEAD, stdout);
    for (int id = 0; id < VERB_COUNT; id++)
        printf("%s%s", id ? " " : "", verb_get((enum verb_id)id)->name);
    fputs(BASH_CASES, stdout);
    for (int id = 0; id < VERB_COUNT; id++) {
        const struct verb *verb = verb_get((enum verb_id)id);
        const char *more;
        printf("    %s%s%s)\n        options=\"", verb->name, *verb->alias ? "|" : "", verb->alias);
        print_options(verb);
        printf("\"\n        values=\"");
        print_values(verb);
        printf("\"\n        kinds=\"%s\"\n", verb_kinds(verb, &more));
        if (*more)
            printf("        more=\"%s\"\n", more);
        printf("        ;;\n");
    }
    fputs(BASH_TAIL, stdout);
    return 0;
}
