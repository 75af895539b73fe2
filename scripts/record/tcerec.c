// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A QEMU TCG plugin: writes down the TCE hypercalls of a pseries guest, with their lists and their answers,
 * and its RTAS calls for dynamic DMA windows. scripts/record-guest builds and uses it; the file that it
 * writes is described in scripts/record/README.md and read by `tce-bench import --from qemu`.
 *
 * How an answer is found: each `sc 1` has a callback that reads the arguments and marks the vCPU. The head of
 * every translation block tests that mark, inline. QEMU makes the hypercall between the two, so the first
 * block that the vCPU runs afterwards, be it the guest's next instruction or the handler of an interrupt that
 * came first, finds the answer in r3 and r4.
 *
 * QEMU's plugin interface 4 (QEMU 9.2 and later) and the two structs of GLib that it hands over are declared
 * here, so that a C compiler is all that a build needs.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

/* GLib */
typedef struct {
    char *data;
    unsigned len;
} GArray;
typedef struct {
    uint8_t *data;
    unsigned len;
} GByteArray;
extern GByteArray *g_byte_array_new(void);
extern GByteArray *g_byte_array_set_size(GByteArray *, unsigned);
extern char *g_array_free(GArray *, int free_segment);

/* QEMU's plugin interface */
typedef uint64_t plugin_id;
struct plugin_info {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
};
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_register;
struct qemu_plugin_scoreboard;
struct register_descriptor {
    struct qemu_plugin_register *handle;
    const char *name, *feature;
};
struct scoreboard_u64 {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
};
enum { CB_R_REGS = 1 };
enum { COND_NE = 3 };
typedef void (*vcpu_callback)(unsigned vcpu, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, vcpu_callback, int flags, void *);
extern void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *, vcpu_callback, int flags,
                                                      int condition, struct scoreboard_u64, uint64_t, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned));
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern GArray *qemu_plugin_get_registers(void);
extern int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *);
extern bool qemu_plugin_read_memory_vaddr(uint64_t, GByteArray *, size_t);
extern int qemu_plugin_num_vcpus(void);
extern struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element);
extern void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned vcpu);

EXPORT int qemu_plugin_version = 4;

enum { H_GET_TCE = 0x1c, H_PUT_TCE = 0x20, H_STUFF_TCE = 0x138, H_PUT_TCE_INDIRECT = 0x13c };
enum { KVMPPC_H_RTAS = 0xf000 };
/* QEMU's tokens of ibm,query-, create-, remove- and reset-pe-dma-window */
enum { RTAS_FIRST_WINDOW_CALL = 0x2026, RTAS_LAST_WINDOW_CALL = 0x2029 };
enum { RTAS_ARGUMENTS = 16, RTAS_WORDS = 3 + RTAS_ARGUMENTS };
enum { MAX_LIST = 512 };

#define MSR_LE 1u
#define MSR_DR 0x10u
/* Where Linux and FreeBSD have all of the guest's memory while translation is on. */
#define LINEAR_MAP UINT64_C(0xc000000000000000)

/* The file */
enum { VERSION = 1, ORDER_MARK = 0x0a0b0c0d };
enum { KIND_CALL = 1, KIND_RTAS = 2, KIND_END = 3 };
enum { FLAG_NO_ANSWER = 1, FLAG_NO_MEMORY = 2 };
enum { HEAD_BYTES = 40, RECORD_BYTES = 96, END_BYTES = 48, MAX_TEXT = 16384 };

enum { FIRST_GPR = 3, GPRS = 5 }; /* r3 to r7 */

struct vcpu {
    uint64_t pending; /* 1 between a call and its answer */
    struct qemu_plugin_register *gpr[GPRS], *msr;
    GByteArray *bytes;
    uint16_t kind, flags;
    uint32_t count; /* of entries in `list`; of an RTAS call, of words */
    uint64_t seq, t_ns, nr, args[4], answer, value;
    uint64_t list[MAX_LIST];
};

static struct qemu_plugin_scoreboard *vcpus;
static struct scoreboard_u64 pending;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* All of these under the lock. */
static FILE *out;
static const char *out_name;
static uint64_t next_seq, unanswered, unreadable, start_ns;

static uint64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Numbers in the file are little-endian, whatever the host. */
static uint8_t *put(uint8_t *at, uint64_t number, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *at++ = (uint8_t)(number >> 8 * i);
    return at;
}

static uint64_t big_endian(const uint8_t *at, unsigned bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes; i++)
        number = number << 8 | at[i];
    return number;
}

/* Writes under the lock. A file that cannot be written is given up, and said so, while the guest goes on. */
static void write_out(const void *bytes, size_t count)
{
    if (!out || fwrite(bytes, 1, count, out) == count)
        return;
    fprintf(stderr, "tcerec: error: cannot write '%s': %s; recording has ended, the guest goes on\n", out_name,
            strerror(errno));
    fclose(out);
    out = NULL;
}

/* Under the lock. */
static void write_record(const struct vcpu *v, unsigned vcpu, uint64_t duration)
{
    uint8_t record[RECORD_BYTES + 8 * MAX_LIST], *at = record;
    unsigned width = v->kind == KIND_RTAS ? 4 : 8;
    size_t bytes = RECORD_BYTES + ((size_t)v->count * width + 7) / 8 * 8;
    memset(record, 0, bytes);
    at = put(at, bytes, 4);
    at = put(at, v->kind, 2);
    at = put(at, v->flags, 2);
    at = put(at, v->seq, 8);
    at = put(at, v->t_ns, 8);
    at = put(at, duration, 8);
    at = put(at, vcpu, 4);
    at = put(at, v->count, 4);
    at = put(at, v->nr, 8);
    for (int i = 0; i < 4; i++)
        at = put(at, v->args[i], 8);
    at = put(at, v->answer, 8);
    at = put(at, v->value, 8);
    for (unsigned i = 0; i < v->count; i++)
        at = put(at, v->list[i], width);
    write_out(record, bytes);
}

/* Registers come in the byte order that the vCPU has at the moment, which MSR tells: its lowest bit is LE, and
 * the lowest bit of its highest byte is always 0. */
static uint64_t read_register(struct vcpu *v, struct qemu_plugin_register *handle, bool little)
{
    g_byte_array_set_size(v->bytes, 0);
    if (qemu_plugin_read_register(handle, v->bytes) != 8) {
        fprintf(stderr, "tcerec: error: QEMU gives no 8 bytes of a register\n");
        exit(1);
    }
    uint64_t number = big_endian(v->bytes->data, 8);
    return little ? __builtin_bswap64(number) : number;
}

static uint64_t read_msr(struct vcpu *v)
{
    uint64_t msr = read_register(v, v->msr, false);
    return msr >> 56 & MSR_LE ? __builtin_bswap64(msr) : msr;
}

static uint64_t read_gpr(struct vcpu *v, uint64_t msr, unsigned number)
{
    return read_register(v, v->gpr[number - FIRST_GPR], msr & MSR_LE);
}

/* Reads big-endian numbers at a guest real address into the list. */
static bool read_list(struct vcpu *v, uint64_t msr, uint64_t address, unsigned width, unsigned count)
{
    uint64_t virtual = msr & MSR_DR ? address | LINEAR_MAP : address;
    g_byte_array_set_size(v->bytes, 0);
    if (!qemu_plugin_read_memory_vaddr(virtual, v->bytes, (size_t)width * count) ||
        v->bytes->len < width * count)
        return false;
    for (unsigned i = 0; i < count; i++)
        v->list[i] = big_endian(v->bytes->data + (size_t)width * i, width);
    return true;
}

/* The words of an RTAS call: token, counts of arguments and of answers, and these. */
static bool read_rtas(struct vcpu *v, uint64_t msr)
{
    if (!read_list(v, msr, v->args[0], 4, RTAS_WORDS))
        return false;
    uint64_t used = v->list[1] + v->list[2];
    v->count = used < RTAS_ARGUMENTS ? 3 + (uint32_t)used : RTAS_WORDS;
    return true;
}

static void at_call(unsigned vcpu, void *data)
{
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    uint64_t msr = read_msr(v), nr = read_gpr(v, msr, 3);
    (void)data;
    if (nr != H_GET_TCE && nr != H_PUT_TCE && nr != H_STUFF_TCE && nr != H_PUT_TCE_INDIRECT &&
        nr != KVMPPC_H_RTAS)
        return;
    v->nr = nr;
    v->kind = KIND_CALL;
    v->flags = 0;
    v->count = 0;
    for (unsigned i = 0; i < 4; i++)
        v->args[i] = read_gpr(v, msr, 4 + i);
    if (nr == H_PUT_TCE_INDIRECT && v->args[3] <= MAX_LIST) {
        if (read_list(v, msr, v->args[2], 8, (unsigned)v->args[3]))
            v->count = (uint32_t)v->args[3];
        else
            v->flags = FLAG_NO_MEMORY;
    } else if (nr == KVMPPC_H_RTAS) {
        v->kind = KIND_RTAS;
        if (!read_rtas(v, msr)) /* It may be any RTAS call: counted. */
            v->flags = FLAG_NO_MEMORY;
        else if (v->list[0] < RTAS_FIRST_WINDOW_CALL || v->list[0] > RTAS_LAST_WINDOW_CALL)
            return;
    }
    pthread_mutex_lock(&lock);
    unreadable += v->flags == FLAG_NO_MEMORY;
    v->seq = next_seq++;
    v->t_ns = now(CLOCK_MONOTONIC) - start_ns;
    pthread_mutex_unlock(&lock);
    v->pending = 1;
}

static void at_block(unsigned vcpu, void *data)
{
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    uint64_t end = now(CLOCK_MONOTONIC) - start_ns, msr = read_msr(v);
    (void)data;
    v->pending = 0;
    v->answer = read_gpr(v, msr, 3);
    v->value = read_gpr(v, msr, 4);
    bool failed = v->kind == KIND_RTAS && !(v->flags & FLAG_NO_MEMORY) && !read_rtas(v, msr);
    pthread_mutex_lock(&lock);
    if (failed) {
        v->flags |= FLAG_NO_MEMORY;
        unreadable++;
    }
    write_record(v, vcpu, end - v->t_ns);
    pthread_mutex_unlock(&lock);
}

static void at_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
    static const uint8_t sc_1[2][4] = {{0x44, 0, 0, 0x22}, {0x22, 0, 0, 0x44}};
    size_t count = qemu_plugin_tb_n_insns(tb);
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, at_block, CB_R_REGS, COND_NE, pending, 0, NULL);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint8_t code[4];
        if (qemu_plugin_insn_data(insn, code, sizeof code) == sizeof code &&
            (!memcmp(code, sc_1[0], sizeof code) || !memcmp(code, sc_1[1], sizeof code)))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, at_call, CB_R_REGS, NULL);
    }
}

static void at_vcpu(plugin_id id, unsigned vcpu)
{
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    GArray *all = qemu_plugin_get_registers();
    bool whole = true;
    (void)id;
    for (unsigned i = 0; i < all->len; i++) {
        const struct register_descriptor *r = (struct register_descriptor *)all->data + i;
        for (unsigned k = 0; k < GPRS; k++) {
            char name[4] = {'r', (char)('0' + FIRST_GPR + k), 0, 0};
            if (!strcmp(r->name, name))
                v->gpr[k] = r->handle;
        }
        if (!strcmp(r->name, "msr"))
            v->msr = r->handle;
    }
    g_array_free(all, 1);
    for (unsigned k = 0; k < GPRS; k++)
        whole = whole && v->gpr[k];
    if (!whole || !v->msr) {
        fprintf(stderr, "tcerec: error: QEMU does not show r3 to r7 and msr of vCPU %u\n", vcpu);
        exit(1);
    }
    v->bytes = g_byte_array_new();
}

static void at_exit(plugin_id id, void *data)
{
    uint8_t end[END_BYTES] = {0}, *at = end;
    (void)id, (void)data;
    pthread_mutex_lock(&lock);
    for (int vcpu = 0; vcpu < qemu_plugin_num_vcpus(); vcpu++) {
        struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, (unsigned)vcpu);
        if (v->pending) {
            v->pending = 0;
            v->flags |= FLAG_NO_ANSWER;
            unanswered++;
            write_record(v, (unsigned)vcpu, 0);
        }
    }
    at = put(at, END_BYTES, 4);
    at = put(at, KIND_END, 2);
    at = put(at, 0, 2);
    at = put(at, next_seq, 8);
    at = put(at, unanswered, 8);
    at = put(at, unreadable, 8);
    at = put(at, now(CLOCK_MONOTONIC) - start_ns, 8);
    write_out(end, END_BYTES);
    if (out && fclose(out))
        fprintf(stderr, "tcerec: error: cannot write '%s': %s\n", out_name, strerror(errno));
    out = NULL;
    fprintf(stderr, "tcerec: %" PRIu64 " calls, %" PRIu64 " without an answer, %" PRIu64 " of unreadable memory\n",
            next_seq, unanswered, unreadable);
    pthread_mutex_unlock(&lock);
}

/* Magic, mark of the byte order, version, length, time of day, vCPUs, and a text of lines KEY=VALUE. */
static void write_head(uint32_t max_vcpus, const char *text)
{
    uint8_t head[HEAD_BYTES + MAX_TEXT] = {0}, *at = head;
    size_t length = strlen(text), whole = (HEAD_BYTES + length + 7) / 8 * 8;
    memcpy(at, "\x89TCECAP\n", 8);
    at = put(at + 8, ORDER_MARK, 4);
    at = put(at, VERSION, 2);
    at = put(at, 0, 2);
    at = put(at, whole, 4);
    at = put(at, length, 4);
    at = put(at, now(CLOCK_REALTIME), 8);
    at = put(at, max_vcpus, 4);
    at = put(at, 0, 4);
    memcpy(at, text, length);
    write_out(head, whole);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct plugin_info *info, int argc, char **argv)
{
    static char text[MAX_TEXT];
    size_t length = 0;
    if (!info->system_emulation || strcmp(info->target_name, "ppc64")) {
        fprintf(stderr, "tcerec: error: this is QEMU for %s; accepted: qemu-system-ppc64\n", info->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) {
            out_name = strdup(argv[i] + 4);
        } else if (!strncmp(argv[i], "qemu=", 5) || !strncmp(argv[i], "ram=", 4) ||
                   !strncmp(argv[i], "window=", 7)) {
            size_t more = strlen(argv[i]) + 1;
            if (strchr(argv[i], '\n') || length + more >= MAX_TEXT) {
                fprintf(stderr, "tcerec: error: '%.60s' has a line break, or all are longer than %d bytes\n",
                        argv[i], MAX_TEXT);
                return -1;
            }
            memcpy(text + length, argv[i], more - 1);
            text[length + more - 1] = '\n';
            length += more;
        } else {
            fprintf(stderr,
                    "tcerec: error: unknown argument '%.60s'; accepted: out=FILE, qemu=VERSION, ram=BYTES and "
                    "window=LIOBN:START:SHIFT:PAGES\n",
                    argv[i]);
            return -1;
        }
    }
    if (!out_name || !*out_name) {
        fprintf(stderr, "tcerec: error: no out=FILE\n");
        return -1;
    }
    out = fopen(out_name, "wb");
    if (!out) {
        fprintf(stderr, "tcerec: error: cannot write '%s': %s\n", out_name, strerror(errno));
        return -1;
    }
    /* Each record goes out at once: what QEMU leaves if it is killed is whole. */
    setvbuf(out, NULL, _IONBF, 0);
    start_ns = now(CLOCK_MONOTONIC);
    write_head((uint32_t)info->system.max_vcpus, text);
    vcpus = qemu_plugin_scoreboard_new(sizeof(struct vcpu));
    pending = (struct scoreboard_u64){vcpus, offsetof(struct vcpu, pending)};
    qemu_plugin_register_vcpu_init_cb(id, at_vcpu);
    qemu_plugin_register_vcpu_tb_trans_cb(id, at_translation);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
