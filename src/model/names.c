/* The words for every enum of the nouns. */
#include "base/str.h"
#include "model/container.h"
#include "model/image.h"
#include "model/pod.h"
#include "model/spec.h"
#include "model/vm.h"

/* Defines names, static_assert and both directions of one enum. */
#define WORDS(prefix, type, count, ...)                                                            \
    static const char *const prefix##_words[] = {__VA_ARGS__};                                     \
    _Static_assert(ARRAY_SIZE(prefix##_words) == (count), "one word for each " #prefix);           \
    const char *prefix##_name(enum type value)                                                     \
    {                                                                                              \
        return (unsigned)value < (count) ? prefix##_words[value] : "?";                            \
    }                                                                                              \
    int prefix##_from_name(const char *name)                                                       \
    {                                                                                              \
        return word_index(prefix##_words, (count), name);                                          \
    }

static int word_index(const char *const *words, int count, const char *word)
{
    for (int i = 0; i < count; i++)
        if (str_eq(words[i], word))
            return i;
    return -1;
}

WORDS(noun, noun, NOUN_COUNT, "pod", "container", "vm", "image")
WORDS(restart, restart, RESTART_COUNT, "", "never", "onFailure", "always")
WORDS(pod_state, pod_state, POD_STATE_COUNT, "creating", "created", "starting", "running",
      "stopping", "removing")
WORDS(pod_want, pod_want, POD_WANT_COUNT, "created", "running", "gone")
WORDS(ctr_state, ctr_state, CTR_STATE_COUNT, "creating", "pending", "starting", "running",
      "stopping", "ended", "removing")
WORDS(ctr_want, ctr_want, CTR_WANT_COUNT, "stopped", "running", "gone")
WORDS(vm_state, vm_state, VM_STATE_COUNT, "booting", "idle", "associated", "stopping")
WORDS(image_state, image_state, IMAGE_STATE_COUNT, "present", "removing")
