/* fuzz_framers.c: turns bytes into framers, and into data that arrives in pieces.
 *
 * The first bytes choose a framer of csrc/python/frames.c, or that of examples/resp,
 * and its limits; the others are the data and its division. Each call gets memory of
 * exactly the length it is told, so that a sanitizer sees a byte that is read too much.
 * Frames must lie inside the data, and must not depend on the division; those of
 * Delimited must be what memmem(3) finds. Anything else aborts.
 *
 * LLVMFuzzerTestOneInput is for libFuzzer. With -DRANDOM_INPUTS=N it is a program that
 * runs N random inputs instead. No function of Python is called, and none is linked. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../../csrc/python/frames.c"
#include "../../examples/resp/resp_framer.c"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                \
    do {                                                                               \
        if (!(condition)) {                                                            \
            (void)fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,         \
                          #condition);                                                 \
            abort();                                                                   \
        }                                                                              \
    } while (0)

enum { DELIMITER_MAX = 4, HEAD = 3 };

/* A framer, what it has cut, and where it stopped. */
struct outcome {
    size_t count;
    size_t at;       /* bytes in complete frames */
    uint64_t digest; /* of sizes and parts */
    int error;
};

/* ---- framers ------------------------------------------------------------------- */

static union {
    struct delimited head;
    unsigned char memory[sizeof(struct delimited) + DELIMITER_MAX];
} some_delimited;
static struct prefixed some_prefixed;

static struct fdmux_framer choose_delimited(uint8_t how, uint8_t limit)
{
    struct delimited *chosen = &some_delimited.head;

    chosen->size = 1 + how % DELIMITER_MAX;
    chosen->frame_max = limit;
    for (size_t i = 0; i < chosen->size; i++) /* few letters, so that many match */
        chosen->delimiter[i] = (how >> (2 + i) & 1) != 0 ? '\r' : '\n';
    return (struct fdmux_framer){sizeof chosen->framer, cut_delimited, chosen};
}

static struct fdmux_framer choose_prefixed(uint8_t how, uint8_t limit)
{
    some_prefixed.size = how % 9;
    some_prefixed.is_little = (how & 0x80) != 0;
    some_prefixed.frame_max = some_prefixed.size == 0 && limit == 0 ? 1 : limit;
    return (struct fdmux_framer){sizeof some_prefixed.framer, cut_prefixed,
                                 &some_prefixed};
}

static struct fdmux_framer choose_framer(const uint8_t *head)
{
    switch (head[0] % 3) {
    case 0:
        return choose_delimited(head[1], head[2]);
    case 1:
        return choose_prefixed(head[1], head[2]);
    default:
        return framer; /* of examples/resp */
    }
}

/* ---- one call ------------------------------------------------------------------ */

static void check_frame(const struct fdmux_frame *frame, size_t length)
{
    MUST(frame->size > 0 && frame->size <= length);
    MUST(frame->part_count <= FDMUX_FRAME_PARTS_MAX);
    MUST(frame->is_list == 1 || frame->part_count == 1);
    for (uint32_t i = 0; i < frame->part_count; i++) {
        MUST(frame->parts[i].first <= frame->size);
        MUST(frame->parts[i].length <= frame->size - frame->parts[i].first);
    }
}

/* What Delimited must return, in its simplest form. */
static void check_delimited(const struct delimited *how, const uint8_t *data,
                            size_t length, const struct fdmux_frame *frame, int r)
{
    const uint8_t *found = memmem(data, length, how->delimiter, how->size);
    bool is_frame = found != NULL && (size_t)(found - data) <= how->frame_max;

    MUST((r == 1) == is_frame);
    MUST((r == -EMSGSIZE) == (!is_frame && length >= how->frame_max + how->size));
    MUST(r != 1 || frame->parts[0].length == (size_t)(found - data));
}

static int cut_copy(const struct fdmux_framer *chosen, const uint8_t *data,
                    size_t length, size_t seen, struct fdmux_frame *frame)
{
    unsigned char *copy = malloc(length);
    int r;

    MUST(copy != NULL);
    memcpy(copy, data, length);
    frame->size = frame->part_count = frame->is_list = 0;
    r = chosen->cut(copy, length, seen, frame, chosen->userdata);
    free(copy);
    MUST(r == 0 || r == 1 || r == -EMSGSIZE || r == -EPROTO);
    if (r == 1)
        check_frame(frame, length);
    if (chosen->cut == cut_delimited)
        check_delimited(chosen->userdata, data, length, frame, r);
    return r;
}

/* ---- one input ----------------------------------------------------------------- */

static void note(struct outcome *outcome, const struct fdmux_frame *frame)
{
    outcome->count++;
    outcome->at += frame->size;
    outcome->digest = outcome->digest * 31 + frame->size;
    for (uint32_t i = 0; i < frame->part_count; i++)
        outcome->digest = (outcome->digest * 31 + frame->parts[i].first) * 31 +
                          frame->parts[i].length;
}

/* Cut what has arrived up to `end`, as frames.c does; `seen` and `wanted` are of the
 * rest. */
static void cut_until(const struct fdmux_framer *chosen, const uint8_t *data,
                      size_t end, size_t *seen, size_t *wanted, struct outcome *outcome)
{
    static struct fdmux_frame frame;

    while (outcome->error == 0 && end > outcome->at && end - outcome->at >= *wanted) {
        size_t length = end - outcome->at;
        int r = cut_copy(chosen, data + outcome->at, length, *seen, &frame);

        *seen = r == 0 ? length : 0;
        *wanted = r != 0 ? 0 : frame.size > length ? frame.size : length + 1;
        if (r == 1)
            note(outcome, &frame);
        else
            outcome->error = r;
    }
}

static struct outcome cut_whole(const struct fdmux_framer *chosen, const uint8_t *data,
                                size_t size)
{
    struct outcome outcome = {0};
    size_t seen = 0, wanted = 0;

    cut_until(chosen, data, size, &seen, &wanted, &outcome);
    return outcome;
}

/* The pieces have the lengths that `sizes` says, over and over. */
static struct outcome cut_pieces(const struct fdmux_framer *chosen, const uint8_t *data,
                                 size_t size, const uint8_t *sizes, size_t count)
{
    struct outcome outcome = {0};
    size_t seen = 0, wanted = 0, end = 0;

    for (size_t i = 0; end < size; i++) {
        end += 1 + (count == 0 ? 0 : sizes[i % count]);
        cut_until(chosen, data, end < size ? end : size, &seen, &wanted, &outcome);
    }
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fdmux_framer chosen;
    struct outcome whole, pieces;
    size_t sizes;

    if (size < HEAD + 1)
        return 0;
    chosen = choose_framer(data);
    sizes = data[HEAD] % 8;
    data += HEAD + 1;
    size -= HEAD + 1;
    if (sizes > size)
        sizes = size;
    whole = cut_whole(&chosen, data + sizes, size - sizes);
    pieces = cut_pieces(&chosen, data + sizes, size - sizes, data, sizes);
    MUST(whole.count == pieces.count && whole.at == pieces.at);
    MUST(whole.digest == pieces.digest && whole.error == pieces.error);
    return 0;
}

#ifdef RANDOM_INPUTS
int main(void)
{
    static const unsigned char likely[] = "\r\n\r\n*$0123\0\0\1\2";
    uint64_t seed = 7;

    for (int i = 0; i < RANDOM_INPUTS; i++) {
        uint8_t bytes[256];
        size_t size;

        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size = seed >> 56;
        for (size_t k = 0; k < size; k++) {
            uint32_t random;

            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            random = (uint32_t)(seed >> 33);
            bytes[k] = random % 4 == 0 ? (uint8_t)(random >> 8)
                                       : likely[(random >> 8) % (sizeof likely - 1)];
        }
        (void)LLVMFuzzerTestOneInput(bytes, size);
    }
    return 0;
}
#endif
