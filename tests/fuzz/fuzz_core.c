/* fuzz_core.c: turns bytes into calls of the core, also from inside its callbacks.
 *
 *     LLVMFuzzerTestOneInput(data, size)
 *
 * is for libFuzzer and AFL++ (tests/fuzz/README.md), and for test_fuzz.c, which replays
 * the corpus. A byte chooses a call, the next ones its arguments. Tokens are mostly
 * live, sometimes stale, of the wrong kind, or invented. Callbacks make calls from the
 * same bytes, up to three levels deep. After each call the structures are verified; at
 * the end memory, `destroyed` and descriptors must balance. Anything else aborts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fuzz_core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "choose.h"
#include "fdmux.h"
#include "fdmux_stream.h"
#include "macos.h"
#include "testing.h"

#define MUST(condition)                                                                \
    do {                                                                               \
        if (!(condition)) {                                                            \
            (void)fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__,         \
                          #condition);                                                 \
            abort();                                                                   \
        }                                                                              \
    } while (0)

enum { CHANNELS = 6, TOKENS = 48, DEPTH_MAX = 3, CALLS_MAX = 400 };
enum { HOLDS = FDMUX_HOLD_MAX + 1, BYTES = 256 * 64 };

struct run {
    const uint8_t *bytes;
    size_t left;
    struct fdmux_loop *loop;
    int fds[CHANNELS][2];
    uint64_t tokens[TOKENS];
    uint32_t token_count;
    int depth;
    int calls;
    int owned; /* how many `destroyed` calls are still to come */
    bool is_over; /* destroyed inside a callback: no call may follow */
    int held;
    struct fdmux_hold holds[HOLDS];
    int borrowed[CALLS_MAX]; /* closed here, not by their streams */
    int borrowed_count;
    unsigned char bytes_of_streams[BYTES];
};

static uint8_t take(struct run *run)
{
    if (run->left == 0)
        return 0;
    run->left--;
    return *run->bytes++;
}

static uint64_t take_token(struct run *run)
{
    uint8_t choice = take(run);
    uint64_t token = run->token_count == 0 ? 0 : run->tokens[choice % run->token_count];

    if (choice == 0xff)
        return token + (UINT64_C(1) << 33); /* a future generation */
    return choice == 0xfe ? ((uint64_t)take(run) << 32 | take(run)) : token;
}

static void keep_token(struct run *run, uint64_t token)
{
    run->tokens[run->token_count % TOKENS] = token;
    if (run->token_count < TOKENS)
        run->token_count++;
    else
        run->tokens[take(run) % TOKENS] = token;
}

/* Check that the header allows this result for some call. */
static int allowed(int result)
{
    static const int errors[] = {
        EINVAL, EIDRM,    ESTALE,       EBUSY,      ENOMEM,    EMFILE, EBADF,
        EEXIST, EPERM,    ENOBUFS,      EOPNOTSUPP, ECANCELED, EPIPE,  EINTR,
        EAGAIN, ENOTCONN, ECONNREFUSED, ELOOP,      ENOSPC,    EFAULT, E2BIG};

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (result >= 0 || result == -errors[i])
            return result;
    (void)fprintf(stderr, "an error that no header names: %d\n", result);
    abort();
}

static void call_one(struct run *run);

/* ---- functions of the loop ----------------------------------------------------- */

/* Make a few calls inside a function, then return a result that may be an error. */
static int inside(struct run *run)
{
    uint8_t count;

    if (run->is_over || run->depth >= DEPTH_MAX)
        return 0;
    run->depth++;
    for (count = take(run) % 4; count > 0 && !run->is_over; count--)
        call_one(run);
    run->depth--;
    return take(run) % 16 == 15 ? -ECANCELED : 0;
}

static int on_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    struct run *run = userdata;

    (void)io, (void)events;
    MUST(loop == run->loop && !run->is_over);
    return inside(run);
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    return on_io(loop, timer, 0, userdata);
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    struct run *run = userdata;

    run->owned--;
    return loop == NULL ? 0 : inside(run);
}

static int on_stream(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                     void *userdata)
{
    return event->kind == FDMUX_STREAM_CLOSED ? 0
                                              : on_io(loop, event->stream, 0, userdata);
}

static int on_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                     size_t *ret_size, void *userdata)
{
    struct run *run = userdata;

    *ret_buffer = run->bytes_of_streams;
    *ret_size = take(run);
    return on_io(loop, stream, 0, userdata);
}

static void *on_enter(void *userdata)
{
    ((struct run *)userdata)->held++;
    return userdata;
}

static void on_leave(void *held, void *userdata)
{
    struct run *run = userdata;

    MUST(held == userdata && run->held > 0);
    run->held--;
}

static int on_batch_end(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    return 1;
}

static void on_close(struct fdmux_loop *loop, void *userdata)
{
    struct run *run = userdata;

    MUST(loop == run->loop);
    (void)inside(run); /* it has no result */
}

static void on_destroyed(void *userdata)
{
    struct run *run = userdata;

    run->owned--;
    MUST(run->owned >= 0);
}

/* ---- calls --------------------------------------------------------------------- */

static int take_fd(struct run *run)
{
    uint8_t choice = take(run);

    return choice >= 0xfa ? (int)choice - 0xfb
                          : run->fds[choice % CHANNELS][choice & 1];
}

static uint32_t take_events(struct run *run)
{
    uint8_t choice = take(run);

    /* Mostly valid events; sometimes any bits. */
    return choice < 0xe0 ? (choice & 0x0fu) | ((choice & 0x70u) << 4)
                         : (uint32_t)choice << (take(run) % 24);
}

static void add_io(struct run *run)
{
    struct fdmux_io_options options = {.struct_size = sizeof options,
                                       .fd = take_fd(run),
                                       .events = take_events(run),
                                       .userdata = run,
                                       .destroyed = on_destroyed};
    uint64_t token;

    if ((take(run) & 3) == 0)
        options.flags = FDMUX_COLLECT;
    else
        options.fn = on_io;
    if (allowed(fdmux_io_add(run->loop, &options, &token)) == 0) {
        run->owned++;
        keep_token(run, token);
    }
}

static void add_timer(struct run *run)
{
    struct fdmux_timer_options options = {
        .struct_size = sizeof options, .userdata = run, .destroyed = on_destroyed};
    uint64_t token;

    if ((take(run) & 3) == 0)
        options.flags = FDMUX_COLLECT;
    else
        options.fn = on_timer;
    if (allowed(fdmux_timer_add(run->loop, &options, &token)) == 0) {
        run->owned++;
        keep_token(run, token);
        (void)allowed(fdmux_timer_arm(run->loop, token, take(run) & 1, take(run) & 1));
    }
}

static void arm_timer(struct run *run)
{
    static const int64_t times[] = {0, 1, -1, INT64_MAX, INT64_MIN, 1 << 30};
    uint64_t token = take_token(run);
    int64_t deadline_ns = times[take(run) % 6];

    (void)allowed(fdmux_timer_arm(run->loop, token, deadline_ns, times[take(run) % 3]));
}

static void add_hook(struct run *run)
{
    struct fdmux_hook_options options = {.struct_size = sizeof options,
                                         .fn = on_timer,
                                         .userdata = run,
                                         .destroyed = on_destroyed};
    uint64_t token;

    if ((take(run) & 7) == 0) {
        if (allowed(fdmux_loop_at_close(run->loop, on_close, run, &token)) == 0)
            keep_token(run, token);
        return;
    }
    if (allowed(fdmux_hook_add(run->loop, &options, &token)) == 0) {
        run->owned++;
        keep_token(run, token);
    }
}

static void post(struct run *run)
{
    run->owned++;
    if (allowed(fdmux_post(run->loop, on_post, run)) < 0)
        run->owned--;
}

static void add_stream(struct run *run)
{
    struct fdmux_stream_options options = {.struct_size = sizeof options,
                                           .userdata = run,
                                           .destroyed = on_destroyed,
                                           .receive_max = 1u + take(run),
                                           .queue_max = 4096,
                                           .fn = on_stream};
    int pair[2];
    uint64_t token;
    uint8_t choice = take(run);
    int r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    options.buffer_fn = (choice & 1) != 0 ? NULL : on_buffer;
    options.flags = (choice & 8) != 0 ? FDMUX_STREAM_BORROW : 0;
    if ((choice & 2) != 0)
        (void)!write(pair[1], "some bytes", 10); /* may be full */
    r = (choice & 4) != 0 ? fdmux_stream_connect(run->loop, pair[0], &options, &token)
                          : fdmux_stream_add(run->loop, pair[0], &options, &token);
    if (allowed(r) == 0) {
        run->owned++;
        keep_token(run, token);
    }
    if (r == 0 && options.flags != 0)
        run->borrowed[run->borrowed_count++] = pair[0];
    else if (r < 0)
        (void)close(pair[0]);
    (void)close(pair[1]); /* the peer sees the end after the bytes */
}

static void use_stream(struct run *run)
{
    uint64_t token = take_token(run);
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    struct fdmux_stream_write_op op = {.stream = token, .data = "more", .length = 4};

    switch (take(run) % 8) {
    case 0:
        (void)allowed(fdmux_stream_write(run->loop, token, run->bytes_of_streams,
                                         take(run) * 64u));
        break;
    case 1:
        (void)allowed(fdmux_stream_write_batch(run->loop, &op, 1));
        break;
    case 2:
        (void)allowed(fdmux_stream_pause(run->loop, token));
        break;
    case 3:
        (void)allowed(fdmux_stream_resume(run->loop, token));
        break;
    case 4:
        (void)allowed(fdmux_stream_shutdown(run->loop, token));
        break;
    case 5:
        (void)allowed(fdmux_stream_stats(run->loop, token, &stats));
        break;
    case 6:
        (void)allowed(fdmux_stream_fd(run->loop, token));
        break;
    default:
        (void)allowed(fdmux_stream_close(run->loop, token, take(run) & 1));
    }
}

/* This calls the old `destroyed`, if there was one; the new one is the same. */
static void set_handler(struct run *run)
{
    struct fdmux_stream_handler handler = {
        .struct_size = sizeof handler, .fn = on_stream, .userdata = run};

    handler.buffer_fn = (take(run) & 1) != 0 ? NULL : on_buffer;
    (void)allowed(fdmux_stream_set_handler(run->loop, take_token(run), &handler));
}

static void use_stream_more(struct run *run)
{
    unsigned char address[28];

    switch (take(run) % 4) {
    case 0:
        set_handler(run);
        break;
    case 1:
        (void)allowed(
            fdmux_stream_await_writable(run->loop, take_token(run), take(run)));
        break;
    case 2:
        (void)allowed(
            fdmux_stream_peer(run->loop, take_token(run), address, sizeof address));
        break;
    default:
        (void)allowed(fdmux_stream_total_max(run->loop, take(run) * 256u));
    }
}

static void hold(struct run *run)
{
    uint8_t choice = take(run);
    int r = fdmux_loop_hold(run->loop, &run->holds[choice % HOLDS]);

    (void)allowed(r);
    MUST(r != -EPERM || run->depth == 0);
    if ((choice & 0x80) != 0)
        (void)allowed(fdmux_loop_set_return(
            run->loop, (choice & 0x40) != 0 ? on_batch_end : NULL, NULL));
}

/* Takes the number of a removed call: inputs of the corpus depend on the numbers. */
static void hold_or_use_stream(struct run *run)
{
    if ((take(run) & 1) != 0)
        hold(run);
    else
        use_stream_more(run);
}

static void touch_channel(struct run *run)
{
    uint8_t choice = take(run);
    int *pair = run->fds[choice % CHANNELS];
    char bytes[64];

    if (choice < 0x80)
        (void)!write(pair[1], "x", 1);
    else if (choice < 0xc0)
        (void)!read(pair[0], bytes, sizeof bytes);
    else { /* closed while watched; their numbers are reused */
        (void)close(pair[0]);
        (void)close(pair[1]);
        MUST(pipe2(pair, O_CLOEXEC | O_NONBLOCK) == 0);
    }
}

static void ask(struct run *run)
{
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats - (take(run) & 8)};
    int64_t deadline_ns;

    (void)allowed(fdmux_loop_stats(run->loop, &stats));
    (void)allowed(fdmux_loop_next_deadline(run->loop, &deadline_ns));
    if ((take(run) & 3) == 0)
        (void)allowed(fdmux_loop_fd(run->loop));
}

static void dispatch(struct run *run)
{
    struct fdmux_ready ready[8];
    int capacity = take(run) % 9;
    int r = fdmux_loop_dispatch(run->loop, 0, capacity > 0 ? ready : NULL, capacity);

    (void)allowed(r);
    MUST(run->depth == 0 || r == -EBUSY || r == -ESTALE);
}

static void fail_soon(struct run *run)
{
    static const int errors[] = {ENOMEM, EMFILE, EAGAIN, EINTR};
    uint8_t choice = take(run);
    int error = errors[choice & 3];

    /* Not persistent for EINTR: the core would retry for ever. */
    fdmux_testing_fail(FDMUX_CALL_ANY & ~FDMUX_CALL_CLOSE, 1 + (choice >> 4), error,
                       error != EINTR && (choice & 4) != 0);
    if ((choice & 8) != 0)
        fdmux_testing_fail(0, 0, 0, 0);
}

static void remove_one(struct run *run)
{
    uint64_t token = take_token(run);

    switch (take(run) % 4) {
    case 0:
        (void)allowed(fdmux_io_remove(run->loop, token));
        break;
    case 1:
        (void)allowed(fdmux_timer_remove(run->loop, token));
        break;
    case 2:
        (void)allowed(fdmux_hook_remove(run->loop, token));
        break;
    default:
        (void)allowed(fdmux_timer_cancel(run->loop, token));
    }
}

static void change_io(struct run *run)
{
    uint64_t token = take_token(run);

    if ((take(run) & 1) != 0)
        (void)allowed(fdmux_io_update(run->loop, token, take_events(run)));
    else
        (void)allowed(fdmux_io_replace_fd(run->loop, token, take_fd(run), FDMUX_READ));
}

static void destroy_inside(struct run *run)
{
    if (run->depth == 0)
        return; /* done at the end of the run */
    run->is_over = true;
    (void)fdmux_loop_destroy(run->loop);
}

static void wake(struct run *run)
{
    (void)allowed((take(run) & 1) != 0 ? fdmux_loop_wake(run->loop)
                                       : fdmux_loop_stop(run->loop));
}

static void (*const calls[])(struct run *) = {
    add_io,     add_timer,     arm_timer,          add_hook,  post,
    add_stream, use_stream,    hold_or_use_stream, ask,       touch_channel,
    dispatch,   wake,          remove_one,         change_io, fail_soon,
    dispatch,   touch_channel, remove_one,         add_io,    destroy_inside,
};

static void call_one(struct run *run)
{
    if (run->is_over || run->calls++ >= CALLS_MAX)
        return;
    calls[take(run) % (sizeof calls / sizeof *calls)](run);
    if (!run->is_over)
        MUST(fdmux_testing_verify(run->loop) == 0);
}

/* ---- one input ----------------------------------------------------------------- */

static uint32_t count_backends(void)
{
    uint32_t count = 0;

    while (fdmux__backend_name(count) != NULL)
        count++;
    return count;
}

static bool open_run(struct run *run, const uint8_t *data, size_t size)
{
    struct fdmux_loop_options options = {.struct_size = sizeof options};

    memset(run, 0, sizeof *run);
    run->bytes = data;
    run->left = size;
    options.backend = fdmux__backend_name(take(run) % count_backends());
    for (int i = 0; i < HOLDS; i++)
        run->holds[i] = (struct fdmux_hold){on_enter, on_leave, run};
    if (fdmux_loop_create(&options, &run->loop) < 0)
        return false;
    for (int i = 0; i < CHANNELS; i++)
        MUST(pipe2(run->fds[i], O_CLOEXEC | O_NONBLOCK) == 0);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run run;
    int64_t allocations = fdmux_testing_allocations();

    fdmux_testing_fail(0, 0, 0, 0);
    if (!open_run(&run, data, size))
        return 0;
    while (run.left > 0 && !run.is_over && run.calls < CALLS_MAX)
        call_one(&run);
    fdmux_testing_fail(0, 0, 0, 0);
    if (!run.is_over)
        (void)fdmux_loop_destroy(run.loop);
    MUST(run.owned == 0 && run.held == 0);
    MUST(fdmux_testing_allocations() == allocations);
    for (int i = 0; i < CHANNELS; i++)
        MUST(close(run.fds[i][0]) == 0 && close(run.fds[i][1]) == 0);
    for (int i = 0; i < run.borrowed_count; i++)
        MUST(close(run.borrowed[i]) == 0);
    return 0;
}
