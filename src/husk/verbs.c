/* The tables themselves: see verb.h. */
#include "husk/verb.h"

#include <strings.h>

#include "base/str.h"
#include "husk/cli.h"

#define V(upper) (1ULL << VERB_##upper)
#define MAKE     (V(RUN) | V(CREATE))
#define V_ALL    ((1ULL << VERB_COUNT) - 1)

const struct option OPTIONS[] = {
#define OPTION(verbs, letter, name, argument, type, many, help)                                    \
    {verbs, letter, name, argument, OPTION_##type, many, help},
#include "husk/options.def"
#undef OPTION
};
const size_t OPTION_COUNT = ARRAY_SIZE(OPTIONS);

_Static_assert(VERB_COUNT < 64, "a verb is a bit of struct option's verbs");

static struct verb verbs[VERB_COUNT] = {
#define VERB(upper, name, alias, arguments, object, right, help)                                   \
    {VERB_##upper, name, alias, arguments, OBJECT_##object, help, 0, 0, false, NULL, "", ""},
#include "core/verbs.def"
#undef VERB
};

/* What only the command line knows of a verb. */
static const struct more {
    enum verb_id id;
    unsigned words_min, words_max;
    bool command_follows;
    int (*run)(struct cli *cli, const struct args *args, struct error **ret_error);
    const char *details;
    const char *examples;
} MORE[] = {
    {VERB_RUN, 0, WORDS_ANY, true, cmd_run,
     "Creates a pod with one container of the image, in a virtual machine of its own, starts it "
     "and "
     "stays attached to it: what the process writes comes out here, signals are passed on to it, "
     "and its exit status becomes that of husk. Standard input is passed on with -i; with -it the "
     "process has this terminal, and ctrl-p ctrl-q leaves it running in the background.\n"
     "If the pod cannot be started it is removed again. Otherwise it stays when the process has "
     "ended, with its files and its virtual machine: 'stop' ends the machine, 'rm' removes the "
     "pod, and --rm does both at the end.\n"
     "With -p the pod is read from a podfile, and husk returns as soon as it runs unless -a is "
     "given.",
     "husk run busybox echo hello  run a command and see what it says\n"
     "husk run -it --rm busybox sh  a shell that leaves nothing behind\n"
     "husk run -d --name web -m 512 --cpu 2 nginx  a server in the background\n"
     "husk run -p pod.json  a pod of several containers\n"},
    {VERB_RUN_POD, 1, 1, false, cmd_run_pod,
     "Creates the pod that the podfile describes and starts it; the same as 'run -p FILE'. The "
     "file - is standard input.",
     "husk run-pod pod.json  create and start a pod\n"
     "husk pod -a --rm pod.json  attach to its first container, remove the pod at the end\n"},
    {VERB_CREATE, 0, WORDS_ANY, true, cmd_create,
     "Makes a pod without starting it: it takes disk space, but no memory. With -c a container is "
     "added to a pod that exists; in a running pod it waits for 'start -c'.",
     "husk create --name web nginx  create a pod\n"
     "husk create -c web --name log busybox tail -f /dev/null  add a container to it\n"},
    {VERB_CREATE_POD, 1, 1, false, cmd_create_pod,
     "The same as 'create -p FILE'. The file - is standard input.",
     "husk create-pod pod.json  create a pod from a file\n"},
    {VERB_START, 1, 2, false, cmd_start,
     "Starts a pod that was created or stopped, with all of its containers, in a new virtual "
     "machine or in the idle one that is named. Returns when it runs.",
     "husk start web  start a pod\n"
     "husk start -c log  start one container of a running pod\n"
     "husk start web vm-QSfCSgWxlX  start a pod in an idle VM\n"},
    {VERB_STOP, 1, WORDS_ANY, false, cmd_stop,
     "Sends each container its stop signal, kills what has not ended in time, and ends the "
     "virtual machine. The pod stays, with its files, and can be started again.",
     "husk stop web db  stop two pods\n"
     "husk stop -t 60 db  give it a minute to end\n"
     "husk stop --onlypod web  keep the VM for another pod\n"},
    {VERB_RM, 1, WORDS_ANY, false, cmd_rm,
     "Removes pods or containers with their files, logs and exit codes. What runs is refused "
     "unless -f is given.",
     "husk rm web  remove a stopped pod\n"
     "husk rm -f $(husk list -q)  remove every pod\n"},
    {VERB_KILL, 1, WORDS_ANY, false, cmd_kill,
     "Sends a signal to the first process of a container, with -p to all containers of a pod. A "
     "VM (vm-…) is ended at once.",
     "husk kill -s HUP web  let a server read its configuration\n"
     "husk kill -p web  kill all of a pod\n"},
    {VERB_PAUSE, 1, 1, false, cmd_pause,
     "Stops the pod's virtual CPUs. Its memory stays allocated; nothing in it notices.",
     "husk pause web  freeze a pod\n"},
    {VERB_UNPAUSE, 1, 1, false, cmd_unpause, "Lets a paused pod go on where it was.",
     "husk unpause web  thaw it again\n"},
    {VERB_REPLACE, 0, 0, false, cmd_replace,
     "Stops a running pod and starts another in the same virtual machine, which takes less time "
     "than a new one. The new pod exists (-n) or is created from a file (-f).",
     "husk replace -o web -n web2  swap two pods\n"},
    {VERB_VM, 0, 0, false, cmd_vm,
     "Starts a virtual machine without a pod. 'run --vm', 'start POD VM' and 'kill VM' take its "
     "id.",
     "husk vm --cpu 2 --memory 256  an idle VM for later\n"},
    {VERB_EXEC, 2, WORDS_ANY, true, cmd_exec,
     "Runs one more process in a running container; a pod's id will do if it has one container. "
     "Its exit status becomes that of husk. With -m it runs in the pod's guest itself, outside "
     "any container.",
     "husk exec web nginx -t  run a command\n"
     "husk exec -it web sh  a shell in the container\n"
     "tar c site | husk exec -i web tar x -C /srv  copy files into it\n"},
    {VERB_ATTACH, 1, 1, false, cmd_attach,
     "Joins the terminal of a container, or its standard input and output. What it wrote while "
     "nobody was attached comes first. If it has ended, the rest of its output is printed (all "
     "that "
     "was logged, if its virtual machine has ended, too) and its status returned. One that nobody "
     "has started is refused. On a terminal, ctrl-p ctrl-q detaches again.",
     "husk attach web  see what it writes\n"},
    {VERB_WAIT, 1, WORDS_ANY, false, cmd_wait,
     "Waits for each of the containers and prints its exit code. The exit status of husk is that "
     "of the last one.",
     "husk wait job  wait for the end of a job\n"},
    {VERB_LOGS, 1, 1, false, cmd_logs,
     "Prints what the container wrote to its standard output and error, each to ours.",
     "husk logs --tail 20 -f web  the last lines, then what comes\n"
     "husk logs -t --since 10m web  the last ten minutes, with times\n"},
    {VERB_LIST, 0, 1, false, cmd_list,
     "Lists pods unless another kind is named. Filters compare the status or the name with a shell "
     "pattern, or name the pod or VM that it belongs to; label=KEY or label=KEY=VALUE looks at the "
     "pod's labels. Several filters must all match.",
     "husk list  all pods\n"
     "husk list container -p web  the containers of a pod\n"
     "husk list -q --filter status=failed  ids of the pods that failed\n"
     "husk list container -s  what they take of the disk\n"
     "husk list vm -o json  VMs, for programs\n"},
    {VERB_INSPECT, 1, WORDS_ANY, false, cmd_inspect,
     "Prints a JSON array with one object for each name.",
     "husk inspect web  all about a pod\n"
     "husk inspect -s web  and what its containers take of the disk\n"},
    {VERB_EVENTS, 0, 0, false, cmd_events,
     "Prints what happened to pods, containers, VMs and images, a line each.",
     "husk events -f --filter name=web  watch a pod\n"
     "husk events --since 1h -o json  the last hour, for programs\n"},
    {VERB_STATS, 0, WORDS_ANY, false, cmd_stats,
     "Prints for each pod that has a virtual machine its use of the CPU since the last line (of "
     "one CPU), the memory that only it has, the memory that it shares with others (of which the "
     "host needs one copy: what clones have of their template), the memory of its virtual machine, "
     "what its containers take of that, and how many processes and threads they have (- if its "
     "guest does not answer in time), and what was read from and written to the host's disks.",
     "husk stats  all pods, every second\n"
     "husk stats --no-stream -o json web  one pod, for programs\n"},
    {VERB_INFO, 0, 0, false, cmd_info,
     "Prints numbers of objects, the machine's and the daemon's settings, how VMs are accelerated "
     "and why, and what the daemon's files take of the disk: blobs, prepared roots of images, "
     "writable layers of containers, logs, templates, and the total and the free room of the file "
     "system.",
     "husk info  is it KVM or emulation?\n"},
    {VERB_VERSION, 0, 0, false, cmd_version,
     "The client's version is always told; if the daemon cannot be reached, it says why.",
     "husk version  both versions\n"},
    {VERB_TEMPLATE, 1, WORDS_ANY, false, cmd_template,
     "A template is a guest that was booted once and frozen; a VM that is cloned of one starts in "
     "a "
     "fraction of the time, and shares its memory. huskd makes those that its settings name by "
     "itself, and anew when the kernel, QEMU or a setting changes; and one of each image that was "
     "used, with the root of the image's next container in it. Under emulation a template that is "
     "used has a zygote: a QEMU that waits to be copied, by which a VM starts sooner still.\n"
     "'ls' lists them. 'inspect' prints all about one, with what it was made of; its id or the "
     "beginning of it will do, or its image. 'build' makes those of the given memories and images, "
     "or all that are listed, anew, and waits for it. 'rm' removes one; VMs that were cloned of it "
     "go on, and it is made "
     "again when the next VM could use it.",
     "husk template ls  are pods cloned here?\n"
     "husk template build 256M  a template for pods of 256 MiB and more\n"
     "husk template build busybox  one for containers of that image\n"
     "husk template rm 256  remove it again\n"},
    {VERB_IMAGES, 0, 1, false, cmd_images,
     "Lists images with their names, ages and sizes: all, or those whose name or repository is "
     "NAME, "
     "in which *, ? and […] are patterns.",
     "husk images -q  ids only\n"
     "husk images 'registry.example/*'  what came from there\n"},
    {VERB_LOAD, 0, 0, false, cmd_load,
     "Reads images from a docker-archive or an OCI layout, as a tar file, plain or compressed with "
     "gzip or zstd: what 'docker save' and 'skopeo copy' write.",
     "husk load -i busybox.tar  load an image\n"
     "skopeo copy docker://alpine docker-archive:/dev/stdout:alpine:latest | husk load  without a "
     "file\n"},
    {VERB_COMMIT, 1, 2, false, cmd_commit,
     "Makes an image of a container: that which it was made from, with one more layer, of all that "
     "was written, changed and removed in it. Its config is that of the image, with what the "
     "container was given: command, entry point, variables, labels, working directory and user; "
     "--change changes it more. The container may run: who writes to its files is held for the "
     "moment in which they are copied. Sockets are left out, and a name that begins with '.wh.' is "
     "refused: an image has no way to say them. Prints the image's id.",
     "husk commit web web:patched  keep what was done in it\n"
     "husk commit -m 'a shell' -c 'CMD [\"sh\"]' -c 'ENV LANG=C' box tools  with another "
     "command\n"},
    {VERB_SAVE, 1, WORDS_ANY, false, cmd_save,
     "Writes images into a tar, an OCI layout that has docker's index too: 'husk load', 'docker "
     "load' and skopeo read it. The blobs go in as they are, so that all digests stay. Of an image "
     "that is named by its id, all names go in.",
     "husk save -o busybox.tar busybox  an archive of an image\n"
     "husk save app db | ssh host husk load  images to another host\n"},
    {VERB_IMAGE, 1, WORDS_ANY, false, cmd_image,
     "'prune' removes the images that have no tag and no container, and what interrupted pulls "
     "have left.\n"
     "'check' reads all blobs of the images, or of those that are named, compares them with their "
     "digests, and makes each root once more to compare it. Each thing that is not right is a "
     "line, and the exit status then is not 0. With --repair a root is replaced, and a blob is "
     "pulled again if its image came from a registry; what is loaded from archives can only be "
     "loaded again.",
     "husk image prune  make room\n"
     "husk image check  is all of it still what it was?\n"
     "husk image check --repair busybox  and if not, make it so\n"},
    {VERB_PULL, 1, 1, false, cmd_pull,
     "Gets the image for this machine from the registry that its name begins with, docker.io if it "
     "names none. Layers that are here are not fetched again, and a pull that was interrupted goes "
     "on where it stopped. Credentials are those of ~/.docker/config.json, else those of 'husk "
     "login'.",
     "husk pull busybox  the newest busybox of docker.io\n"
     "husk pull -q ghcr.io/user/app:1.2  in a script\n"
     "husk pull app@sha256:3fbc632167424a6d997e74f52b878d7cc478225cffac6bc977eedfe51c7f4e79  by "
     "digest\n"},
    {VERB_PUSH, 1, 1, false, cmd_push,
     "Puts an image into the registry that its name begins with, under that name. Layers that are "
     "there already are not sent, and those that another repository of the registry has are "
     "mounted from it. Nothing is packed again: digests stay what they are.",
     "husk tag app registry.example/user/app:1.2  give it the name it shall have there\n"
     "husk push registry.example/user/app:1.2  and send it\n"},
    {VERB_TAG, 2, 2, false, cmd_tag,
     "Gives an image one more name; if another image has that name, it loses it.",
     "husk tag busybox:latest registry.example/tools/busybox:1  a name in a registry\n"},
    {VERB_HISTORY, 1, 1, false, cmd_history,
     "Prints the steps that the image says it was made by, the last one first.",
     "husk history busybox  what is in it, and why\n"},
    {VERB_LOGIN, 0, 1, false, cmd_login,
     "Tries a user's name and password at a registry, docker.io if none is named, and has the "
     "daemon keep them, in a file that only it can read, for every pull and push that brings none "
     "of its own.",
     "husk login registry.example  asks for name and password\n"
     "husk login -u ann --password-stdin registry.example < secret  in a script\n"},
    {VERB_LOGOUT, 0, 1, false, cmd_logout,
     "Has the daemon forget what it was told by 'husk login'.",
     "husk logout registry.example  forget\n"},
    {VERB_RMI, 1, WORDS_ANY, false, cmd_rmi, "Removes images. One that a pod uses is refused.",
     "husk rmi busybox  remove an image\n"},
    {VERB_COMPLETION, 1, 1, false, cmd_completion,
     "Prints a script for the shell; bash is known. Names of pods, containers and images are asked "
     "of the daemon as they are completed.",
     "source <(husk completion bash)  complete in this shell\n"},
    {VERB_HELP, 0, 1, false, cmd_help, "Without a verb, all of them are listed.",
     "husk help run  all about a verb\n"},
};

_Static_assert(ARRAY_SIZE(MORE) == VERB_COUNT, "each verb has its row");

const struct verb *verb_get(enum verb_id id)
{
    struct verb *verb = &verbs[id];
    for (size_t i = 0; i < ARRAY_SIZE(MORE) && !verb->run; i++) {
        const struct more *more = &MORE[i];
        if (more->id != id)
            continue;
        verb->words_min = more->words_min;
        verb->words_max = more->words_max;
        verb->command_follows = more->command_follows;
        verb->run = more->run;
        verb->details = more->details;
        verb->examples = more->examples;
    }
    return verb;
}

const struct verb *verb_find(const char *name)
{
    for (int id = 0; id < VERB_COUNT; id++)
        if (strcasecmp(verbs[id].name, name) == 0 ||
            (*verbs[id].alias && strcasecmp(verbs[id].alias, name) == 0))
            return verb_get((enum verb_id)id);
    return NULL;
}

static const char *verb_candidate(size_t index, void *arg)
{
    return index < VERB_COUNT ? verbs[index].name : NULL;
}

/* What other engines call it. */
static const struct {
    const char *theirs;
    enum verb_id ours;
} ELSEWHERE[] = {
    {"ps", VERB_LIST},          {"ls", VERB_LIST},   {"get", VERB_LIST},
    {"delete", VERB_RM},        {"remove", VERB_RM}, {"import", VERB_LOAD},
    {"export", VERB_SAVE},      {"top", VERB_STATS}, {"resume", VERB_UNPAUSE},
    {"describe", VERB_INSPECT}, {"log", VERB_LOGS},
};

const char *verb_nearest(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(ELSEWHERE); i++)
        if (strcasecmp(ELSEWHERE[i].theirs, name) == 0)
            return verbs[ELSEWHERE[i].ours].name;
    return nearest(name, verb_candidate, NULL);
}
