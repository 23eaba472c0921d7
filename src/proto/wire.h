/* The wire: frames between huskd, keepers, workers and guests.
 *
 * A frame is a header of 12 bytes and a payload:
 *
 *      0        4      6       8          12
 *      | length | type | flags |  stream  |  payload …
 *
 * All numbers are little-endian. `length` counts the payload. `stream` names a process in the
 * guest, 0 elsewhere. The payload of a message is its fields in the order of wire.def:
 *
 *      u32 i32   4 bytes             u64   8 bytes
 *      str       u32 size with its NUL, the bytes, the NUL; size 0 reads as ""
 *      blob      u32 size, the bytes
 *      strv      u32 count, then that many str
 *
 * Resynchronisation: a side that starts to read (or whose peer may have been replaced) throws
 * bytes away until it has seen WIRE_MAGIC, which precedes each HELLO and is not a valid header.
 *
 * Flow control: nothing may be sent on a stream's channel without credit (CREDIT), which the
 * reader grants as its own consumer takes bytes away. Messages other than data need no credit.
 */
#ifndef HUSK_PROTO_WIRE_H
#define HUSK_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum {
    WIRE_VERSION = 1,
    WIRE_LOWEST = 1,
    WIRE_HEADER_SIZE = 12,
    WIRE_MAGIC_SIZE = 16,
    WIRE_PAYLOAD_MAX = 4 << 20, /* an argv and an environment may be 2 MiB (ARG_MAX) */
    WIRE_DATA_MAX = 128 << 10,  /* of one STDIN, STDOUT or STDERR frame */
    WIRE_STRV_MAX = 1 << 16,    /* strings in a vector */
    WIRE_WINDOW = 512 << 10,    /* credit that a reader grants at first */
    ATTACH_REPLAY_MAX = 64 << 10,
};

/* As a header it would claim a length far over WIRE_PAYLOAD_MAX. */
extern const uint8_t WIRE_MAGIC[WIRE_MAGIC_SIZE];

enum wire_type {
#define WIRE_BEGIN(upper, lower, number) WIRE_##upper = number,
#define WIRE_FIELD(lower, type, name)
#define WIRE_END(lower)
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END
};

enum wire_flag {
    WIRE_FLAG_FD = 1, /* a descriptor was sent along (unix sockets only) */
};

enum wire_process_flag {
    WIRE_TTY = 1,
    WIRE_STDIN_OPEN = 2, /* else its stdin is empty */
    WIRE_READ_ONLY = 4,  /* the root; CTR_START and RUN only */
    WIRE_SHARED = 8,     /* RUN: image and layer are directories of the host */
};

enum wire_framing {
    WIRE_FRAMING_RAW = 0,    /* terminal, or execvm */
    WIRE_FRAMING_STDCOPY = 1 /* {1 or 2, 0, 0, 0, u32 BE length} before each piece */
};

/* Reasons of a VM_EVENT that mean more than their words: the clone could not be a copy of the
 * zygote, which is of no use then; QEMU has frozen the VM because a disk of it cannot be written.
 */
#define WIRE_EVENT_ZYGOTE_FAILED "ZygoteFailed"
#define WIRE_EVENT_DISK_FULL     "DiskFull"

enum wire_boot_mode {
    WIRE_BOOT_COLD = 0,
    WIRE_BOOT_CLONE = 1,    /* of a template's memory and state */
    WIRE_BOOT_TEMPLATE = 2, /* its memory is the file that came with the request: cold, or, if there
                             * is a `state`, from where another template was frozen */
    WIRE_BOOT_ZYGOTE = 3,   /* a clone that will only be copied */
};

/* A layer's first bytes, which no ext4 uses: in one that is as its image's template has it they are
 * that template's own. */
enum { LAYER_MARK_SIZE = 1024 };

enum wire_vm_phase {
    WIRE_VM_BOOTING = 0,
    WIRE_VM_READY = 1,
    WIRE_VM_GONE = 2,
};

struct wire_blob {
    const uint8_t *data;
    uint32_t size;
};

typedef uint32_t wire_u32;
typedef uint64_t wire_u64;
typedef int32_t wire_i32;
typedef const char *wire_str;         /* NULL encodes as "" */
typedef const char *const *wire_strv; /* NULL encodes as none */
typedef struct wire_blob wire_blob;

#define WIRE_BEGIN(upper, lower, number) struct wire_##lower {
#define WIRE_FIELD(lower, type, name)    wire_##type name;
#define WIRE_END(lower)                                                                            \
    char wire_no_fields[0];                                                                        \
    }                                                                                              \
    ;
#include "proto/wire.def"
#undef WIRE_BEGIN
#undef WIRE_FIELD
#undef WIRE_END

struct wire_frame {
    uint16_t type;
    uint16_t flags;
    uint32_t stream;
    const uint8_t *payload; /* in the decoder's buffer: valid until it is fed again */
    uint32_t length;
};

/* "RUN"; NULL if there is no such message. */
const char *wire_name(unsigned type);

void wire_header(uint8_t ret[WIRE_HEADER_SIZE], unsigned type, unsigned flags, uint32_t stream,
                 uint32_t length);

/* Appends a whole frame with the message of that type (a struct wire_…). */
void wire_put(struct buf *out, unsigned type, unsigned flags, uint32_t stream, const void *message);

/* Appends WIRE_MAGIC and a HELLO. */
void wire_put_hello(struct buf *out, const char *role, const char *build);

/* Reads the fields of a frame's payload into a struct wire_… of its type. Strings and blobs point
 * into the payload; vectors are allocated: call wire_clear() in the end, also after an error.
 * ERROR_CORRUPT names the message and the field. */
int wire_get(const struct wire_frame *frame, void *ret_message, struct error **ret_error);
void wire_clear(unsigned type, void *message);

/* Checks a HELLO: ERROR_UNSUPPORTED with a sentence if the two sides have no version in common. */
int wire_check_hello(const struct wire_hello *hello, struct error **ret_error);

/* Fills a REPLY from an error (NULL: done); its message points into the error. */
struct wire_reply wire_reply_from(uint32_t seq, const struct error *error);
/* The error that a REPLY carries: returns 0, or -1 and *ret_error. */
int wire_reply_check(const struct wire_reply *reply, struct error **ret_error);

/* ---- taking a stream of bytes apart --------------------------------------------------------- */

struct wire_decoder {
    struct buf in;
    bool synced; /* the magic was seen */
};

/* Where to read into: at least `size` bytes; then say how many came with wire_decoder_fed(). */
uint8_t *wire_decoder_space(struct wire_decoder *d, size_t size);
void wire_decoder_fed(struct wire_decoder *d, size_t size);
/* 1: *ret holds the next frame (consume it with wire_decoder_next); 0: more bytes are needed;
 * -1: ERROR_CORRUPT, the peer is broken or hostile. */
int wire_decoder_peek(struct wire_decoder *d, struct wire_frame *ret, struct error **ret_error);
void wire_decoder_next(struct wire_decoder *d, const struct wire_frame *frame);
/* After -1, if the peer may start anew: what is here is searched for the magic. */
void wire_decoder_skip(struct wire_decoder *d);
/* Forgets everything, and waits for the magic again. */
void wire_decoder_reset(struct wire_decoder *d);

#endif
