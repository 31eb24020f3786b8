/* test_misuse_random.c: random calls on two loops, mostly with wrong arguments.
 *
 * In any order of calls, each call succeeds or returns an error that its header names,
 * and the structures stay valid. At the end every watcher that was accepted was
 * destroyed once, and every posted call has run once.
 *
 * A run makes 20,000 calls, or a million in a build with ASan. FDMUX_TEST_CALLS and
 * FDMUX_TEST_SEED change this; a case that fails prints its seed. */
#include "stream_fixtures.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "loop_state.h"

#if defined(__SANITIZE_ADDRESS__) /* gcc */
#define CALLS_DEFAULT 1000000
#else
#define CALLS_DEFAULT 20000
#endif
#define VERIFY_EVERY 500
#define LOOP_COUNT 2
#define TOKEN_COUNT 256 /* the latest ones; forgotten watchers end with their loop */
#define FD_COUNT 16
#define STREAM_MAX 24
#define LOAN_MAX 64
#define HOLD_COUNT (FDMUX_HOLD_MAX + 2)
#define DEPTH_MAX 3
#define OWN_ERROR 4000 /* returned by functions; no errno has this number */

/* A borrowed descriptor, closed here when its stream has ended. */
struct loan {
    int fd;
    bool is_over;
};

static struct world {
    uint64_t random;
    struct fdmux_loop *loops[LOOP_COUNT];
    uint64_t tokens[TOKEN_COUNT];
    int fds[FD_COUNT]; /* pairs of pipes and sockets, sometimes replaced */
    int peers[STREAM_MAX];
    struct loan loans[LOAN_MAX];
    unsigned char buffer[4096]; /* for buffer functions; never read */
    struct fdmux_hold holds[HOLD_COUNT];
    int held;
    int depth;
    int64_t accepted; /* watchers and streams that have a `destroyed` */
    int64_t destroyed;
    int64_t posted;
    int64_t post_runs;
    int64_t refusals; /* to notice runs in which every call fails */
    int64_t successes;
} world;

/* ---- choosing -------------------------------------------------------------------- */

static uint32_t below(uint32_t bound)
{
    return check_random(&world.random) % bound;
}

static bool one_in(uint32_t count)
{
    return below(count) == 0;
}

static uint64_t any_word(void)
{
    uint64_t high = (uint64_t)check_random(&world.random) << 33;

    return high ^ (uint64_t)check_random(&world.random) << 16 ^
           check_random(&world.random);
}

static struct fdmux_loop *any_loop(void)
{
    static uint64_t garbage[512];

    if (one_in(50))
        return NULL;
    if (one_in(50))
        return (void *)garbage;
    return world.loops[below(LOOP_COUNT)];
}

/* A token of either loop, perhaps stale, or any number. */
static uint64_t any_token(void)
{
    uint64_t token = world.tokens[below(TOKEN_COUNT)];

    if (one_in(16))
        return any_word();
    return one_in(16) ? token ^ UINT64_C(1) << below(64) : token;
}

static void remember(uint64_t token)
{
    world.tokens[below(TOKEN_COUNT)] = token;
}

static int any_fd(void)
{
    static const int wild[] = {-1, INT32_MIN, INT32_MAX, 99999, 1 << 20};

    if (one_in(12))
        return wild[below(sizeof wild / sizeof *wild)];
    if (one_in(40))
        return 0; /* /dev/null: epoll refuses it */
    if (one_in(40)) /* a loop in another, or in itself */
        return fdmux_loop_fd(world.loops[below(LOOP_COUNT)]);
    return world.fds[below(FD_COUNT)];
}

static uint32_t any_events(void)
{
    static const uint32_t usual[] = {0, FDMUX_READ, FDMUX_WRITE, FDMUX_READ,
                                     FDMUX_READ | FDMUX_WRITE};

    if (one_in(4))
        return (uint32_t)any_word() & 0x73f; /* known bits in any combination */
    return one_in(12) ? (uint32_t)any_word() : usual[below(5)];
}

static int64_t any_time(struct fdmux_loop *loop)
{
    static const int64_t wild[] = {INT64_MIN, -1, 0, 1, INT64_MAX - 1, INT64_MAX};

    if (one_in(4))
        return wild[below(6)];
    return fdmux_loop_now(loop) + below(2000000) - 1000000;
}

static size_t any_size(size_t right)
{
    return one_in(10) ? (size_t)any_word() % (2 * right) : right;
}

static void *or_null(void *pointer)
{
    return one_in(30) ? NULL : pointer;
}

/* ---- checking results ------------------------------------------------------------ */

#define ANY_CALL -EINVAL, -EFAULT, -E2BIG, -ESTALE
#define SYSTEM_IO -EBADF, -EPERM, -EEXIST, -EOPNOTSUPP, -ELOOP, -ENOTSOCK

static int judge_result(const char *name, int r, const int *known, size_t count)
{
    bool is_known = r >= 0;

    for (size_t i = 0; i < count && !is_known; i++)
        is_known = r == known[i];
    if (!is_known)
        check_fail(__FILE__, __LINE__, "%s returned %d", name, r);
    world.successes += r >= 0 ? 1 : 0;
    world.refusals += r < 0 ? 1 : 0;
    return r;
}

/* The result of a call must be >= 0 or one of these. */
#define JUDGE(name, r, ...)                                                            \
    judge_result(name, r, (const int[]){ANY_CALL, __VA_ARGS__},                        \
                 sizeof (int[]){ANY_CALL, __VA_ARGS__} / sizeof(int))

/* ---- functions given to the loops, which make further calls ---------------------- */

static void call_something(void);

static int any_result(void)
{
    return one_in(12) ? -OWN_ERROR : (int)below(2);
}

static int act(void)
{
    world.depth++;
    for (uint32_t i = below(3); i > 0 && world.depth <= DEPTH_MAX; i--)
        call_something();
    world.depth--;
    return any_result();
}

static int on_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    char bytes[64];

    (void)loop, (void)events, (void)userdata;
    remember(io);
    /* Most of the time, read from the descriptor, of any kind. */
    if (!one_in(4))
        (void)!read(world.fds[below(FD_COUNT)], bytes, sizeof bytes);
    return act();
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)userdata;
    remember(timer);
    return act();
}

static int on_hook(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)userdata;
    remember(hook);
    return one_in(8) ? act() : 0;
}

/* Everything is called here as well, while the loop closes. */
static void on_close(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    (void)act(); /* it has no result */
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    world.post_runs++;
    return loop == NULL ? 0 : act();
}

static void on_prefetch(void *const *userdata, uint32_t count)
{
    CHECK(count > 1);
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(userdata[i]);
}

static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    (void)userdata;
    CHECK(event->kind > 0 && event->kind < KINDS);
    if (atomic_load(&loop->is_closed))
        return 0;
    remember(event->stream);
    if (event->kind == FDMUX_STREAM_DATA && one_in(2))
        (void)fdmux_stream_write(loop, event->stream, event->data, event->length);
    return act();
}

static int on_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                     size_t *ret_size, void *userdata)
{
    (void)loop, (void)userdata;
    remember(stream);
    *ret_size = below(3) * 2048u / (1 + below(8));
    *ret_buffer = *ret_size == 0 ? NULL : world.buffer;
    return one_in(4) ? act() : 0;
}

static void on_destroyed(void *userdata)
{
    struct loan *loan = userdata;

    world.destroyed++;
    if (loan != NULL)
        loan->is_over = true;
}

static int on_batch_end(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata; /* it must only read */
    return one_in(4) ? 1 : 0;
}

static void *on_enter(void *userdata)
{
    world.held++;
    return userdata;
}

static void on_leave(void *held, void *userdata)
{
    CHECK(held == userdata);
    world.held--;
    if (one_in(8))
        (void)act(); /* `leave` has no result */
}

/* Count and remember the token of a successful registration. */
static void accepted(int r, uint64_t token)
{
    if (r != 0)
        return;
    world.accepted++;
    remember(token);
}

/* ---- one random call of each ----------------------------------------------------- */

static void try_io_add(void)
{
    struct fdmux_io_options options = {
        .struct_size = any_size(sizeof options),
        .fd = any_fd(),
        .events = any_events(),
        .fn = one_in(4) ? NULL : on_io,
        .destroyed = on_destroyed,
    };
    uint64_t io = 0;
    int r;

    if (one_in(30) != (options.fn == NULL))
        options.flags = FDMUX_COLLECT;
    r = fdmux_io_add(any_loop(), or_null(&options), or_null(&io));

    accepted(JUDGE("io_add", r, SYSTEM_IO), io);
}

static void try_io_change(void)
{
    int r = fdmux_io_update(any_loop(), any_token(), any_events());

    (void)JUDGE("io_update", r, -EIDRM, SYSTEM_IO);
    r = fdmux_io_replace_fd(any_loop(), any_token(), any_fd(), any_events());
    (void)JUDGE("io_replace_fd", r, -EIDRM, SYSTEM_IO);
    (void)JUDGE("io_fd", fdmux_io_fd(any_loop(), any_token()), -EIDRM, -EBADF);
}

static void try_remove(void)
{
    uint64_t token = any_token();
    struct fdmux_loop *loop = any_loop();

    (void)JUDGE("io_remove", fdmux_io_remove(loop, token), -EIDRM);
    (void)JUDGE("timer_remove", fdmux_timer_remove(loop, token), -EIDRM);
    (void)JUDGE("hook_remove", fdmux_hook_remove(loop, token), -EIDRM);
}

static void try_timer_add(void)
{
    struct fdmux_timer_options options = {
        .struct_size = any_size(sizeof options),
        .fn = one_in(4) ? NULL : on_timer,
        .destroyed = on_destroyed,
    };
    uint64_t timer = 0;
    int r;

    if (one_in(30) != (options.fn == NULL))
        options.flags = FDMUX_COLLECT;
    r = fdmux_timer_add(any_loop(), or_null(&options), or_null(&timer));

    accepted(JUDGE("timer_add", r, -EINVAL), timer);
}

static void try_timer_arm(void)
{
    struct fdmux_loop *loop = any_loop();
    int64_t period_ns = one_in(2) ? 0 : any_time(loop);
    int r = fdmux_timer_arm(loop, any_token(), any_time(loop), period_ns);

    (void)JUDGE("timer_arm", r, -EIDRM);
    r = fdmux_timer_arm_in(any_loop(), any_token(), any_time(loop), period_ns);
    (void)JUDGE("timer_arm_in", r, -EIDRM);
    r = fdmux_timer_cancel(any_loop(), any_token());
    (void)JUDGE("timer_cancel", r, -EIDRM);
}

static void try_post(void)
{
    bool has_function = !one_in(20);
    int r = fdmux_post(any_loop(), has_function ? on_post : NULL, NULL);

    world.posted += JUDGE("post", r, -EINVAL) == 0 ? 1 : 0;
}

static void try_hook_add(void)
{
    struct fdmux_hook_options options = {
        .struct_size = any_size(sizeof options),
        .fn = one_in(20) ? NULL : on_hook,
        .destroyed = on_destroyed,
    };
    uint64_t hook = 0;
    int r;

    if (!one_in(8))
        return; /* every hook runs in every iteration */
    r = fdmux_hook_add(any_loop(), or_null(&options), or_null(&hook));
    accepted(JUDGE("hook_add", r, -EINVAL), hook);
}

static void try_at_close(void)
{
    uint64_t hook = 0;
    int r = fdmux_loop_at_close(any_loop(), one_in(20) ? NULL : on_close, NULL,
                                or_null(&hook));

    if (JUDGE("at_close", r, -EINVAL) == 0)
        remember(hook);
    if (one_in(4))
        CHECK(fdmux_loop_unref(fdmux_loop_ref(any_loop())) == NULL);
}

static void try_dispatch(void)
{
    struct fdmux_loop *loop = any_loop();
    struct fdmux_ready ready[8];
    int capacity = one_in(10) ? (int)any_word() % 9 : (int)below(9);
    int64_t timeout_ns = one_in(3) ? (int64_t)below(2000) : 0;
    int r;

    /* Wake the loop before a dispatch that would wait for ever. */
    if (one_in(10) && fdmux_loop_wake(loop) == 0)
        timeout_ns = one_in(2) ? INT64_MIN : INT64_MAX;
    r = fdmux_loop_dispatch(loop, timeout_ns, or_null(ready), capacity);
    (void)JUDGE("dispatch", r, -EBUSY, -EINTR, -ENOBUFS, -OWN_ERROR);
    for (int i = 0; i < r; i++)
        remember(ready[i].token);
    if (one_in(4) && fdmux_loop_stop(loop) == 0)
        (void)JUDGE("run", fdmux_loop_run(loop), -EBUSY, -ENOBUFS, -OWN_ERROR);
}

static void try_asking(void)
{
    struct fdmux_loop_stats stats = {.struct_size = any_size(sizeof stats)};
    struct fdmux_stream_stats numbers = {.struct_size = any_size(sizeof numbers)};
    int64_t deadline_ns;
    void *handle;
    int r = fdmux_loop_stats(any_loop(), or_null(&stats));

    (void)JUDGE("loop_stats", r, -EINVAL);
    r = fdmux_loop_next_deadline(any_loop(), or_null(&deadline_ns));
    (void)JUDGE("next_deadline", r, -EINVAL);
    (void)JUDGE("loop_fd", fdmux_loop_fd(any_loop()), -EOPNOTSUPP);
    (void)JUDGE("loop_handle", fdmux_loop_handle(any_loop(), or_null(&handle)),
                -EOPNOTSUPP);
    (void)JUDGE("after_fork", fdmux_loop_after_fork(any_loop()), -EINVAL);
    r = fdmux_stream_stats(any_loop(), any_token(), or_null(&numbers));
    (void)JUDGE("stream_stats", r, -EIDRM);
    (void)JUDGE("stream_fd", fdmux_stream_fd(any_loop(), any_token()), -EIDRM);
    CHECK(fdmux_loop_now(any_loop()) > 0);
    (void)fdmux_loop_backend(any_loop());
}

/* ---- streams --------------------------------------------------------------------- */

static struct fdmux_stream_options any_stream_options(void)
{
    struct fdmux_stream_options options = {
        .struct_size = any_size(sizeof options),
        .fn = one_in(20) ? NULL : on_event,
        .buffer_fn = one_in(3) ? on_buffer : NULL,
        .destroyed = on_destroyed,
        .connection_max = 4,
        .flags = one_in(40) ? (uint32_t)any_word() & ~1u : 0, /* unknown flags */
    };
    uint32_t *limits[] = {&options.receive_max, &options.queue_max, &options.queue_high,
                          &options.queue_low};

    for (int i = 0; i < 4; i++)
        *limits[i] = one_in(4) ? (uint32_t)any_word() >> below(32) : 0;
    if (one_in(4))
        options.idle_timeout_ns = (int64_t)any_word() >> below(64);
    if (one_in(4))
        options.stall_timeout_ns = (int64_t)any_word() >> below(64);
    return options;
}

/* Keep the other end of a stream, to send bytes and later close it. */
static void keep_peer(int fd)
{
    uint32_t index = below(STREAM_MAX);

    if (world.peers[index] >= 0)
        CHECK_EQ(close(world.peers[index]), 0);
    world.peers[index] = fd;
}

static void try_stream_add(void)
{
    struct fdmux_stream_options options = any_stream_options();
    uint64_t stream = 0;
    int fds[2];
    int r;

    open_sockets(fds);
    if (one_in(8))
        r = fdmux_stream_listen(any_loop(), fds[0], &options, or_null(&stream));
    else if (one_in(8))
        r = fdmux_stream_connect(any_loop(), fds[0], &options, or_null(&stream));
    else
        r = fdmux_stream_add(any_loop(), fds[0], or_null(&options), or_null(&stream));
    accepted(JUDGE("stream_add", r, -EINVAL), stream);
    if (r < 0)
        CHECK_EQ(close(fds[0]), 0);
    keep_peer(fds[1]);
}

static void try_stream_address(void)
{
    static const char *const hosts[] = {"127.0.0.1", "::1", "", "localhost", NULL};
    struct fdmux_stream_options options = any_stream_options();
    struct fdmux_stream_address address = {
        .struct_size = any_size(sizeof address),
        .host = hosts[one_in(2) ? below(5) : 0],
        .path = one_in(20) ? "" : NULL,
        .flags = one_in(20) ? (uint32_t)any_word() : 0,
        .backlog = one_in(20) ? (int)any_word() : 0,
    };
    uint64_t stream = 0;
    int r;

    if (!one_in(16))
        return; /* each needs sockets */
    r = one_in(2)
            ? fdmux_stream_listen_at(any_loop(), &address, &options, or_null(&stream))
            : fdmux_stream_connect_to(any_loop(), &address, &options, or_null(&stream));
    accepted(JUDGE("stream_at", r, -EADDRNOTAVAIL, -EADDRINUSE, -EACCES, -ECONNREFUSED,
                   -EAFNOSUPPORT, -ENETUNREACH),
             stream);
}

static void try_write(void)
{
    static char bytes[70000];
    size_t length = below(one_in(16) ? sizeof bytes : 100);
    struct fdmux_stream_write_op ops[3];
    int r = fdmux_stream_write(any_loop(), any_token(), or_null(bytes), length);

    (void)JUDGE("write", r, -EIDRM, -EPIPE, -ENOBUFS);
    for (int i = 0; i < 3; i++)
        ops[i] = (struct fdmux_stream_write_op){any_token(), or_null(bytes),
                                                one_in(4) ? 0 : length};
    r = fdmux_stream_write_batch(any_loop(), or_null(ops), below(4));
    (void)JUDGE("write_batch", r, -EINVAL);
    if (world.peers[below(STREAM_MAX)] >= 0)
        (void)send(world.peers[below(STREAM_MAX)], bytes, length,
                   MSG_DONTWAIT | MSG_NOSIGNAL); /* may fail, too */
}

static void try_stream_verb(void)
{
    int r = fdmux_stream_pause(any_loop(), any_token());

    (void)JUDGE("pause", r, -EIDRM);
    r = fdmux_stream_resume(any_loop(), any_token());
    (void)JUDGE("resume", r, -EIDRM);
    r = one_in(4) ? fdmux_stream_shutdown(any_loop(), any_token()) : 0;
    (void)JUDGE("shutdown", r, -EIDRM);
    r = fdmux_stream_close(any_loop(), any_token(), one_in(8) ? below(8) : below(2));
    (void)JUDGE("close", r, -EIDRM);
    r = one_in(16)
            ? fdmux_stream_total_max(any_loop(), (size_t)(any_word() >> below(64)))
            : 0;
    (void)JUDGE("total_max", r, -EINVAL);
}

/* Returns a free place, or NULL. Closes the descriptors of streams that have ended. */
static struct loan *find_loan(void)
{
    struct loan *loan = &world.loans[below(LOAN_MAX)];

    if (loan->fd >= 0 && !loan->is_over)
        return NULL;
    if (loan->fd >= 0)
        CHECK_EQ(close(loan->fd), 0);
    *loan = (struct loan){.fd = -1};
    return loan;
}

static void try_borrow(void)
{
    struct loan *loan = find_loan();
    struct fdmux_stream_options options = any_stream_options();
    uint64_t stream = 0;
    int fds[2];
    int r;

    if (loan == NULL)
        return;
    open_sockets(fds);
    options.flags = FDMUX_STREAM_BORROW;
    options.userdata = loan;
    *loan = (struct loan){.fd = fds[0]};
    r = fdmux_stream_add(any_loop(), loan->fd, &options, or_null(&stream));
    loan->is_over = r < 0;
    accepted(JUDGE("borrow", r, -EINVAL), stream);
    keep_peer(fds[1]);
}

static void try_handler(void)
{
    struct fdmux_stream_handler handler = {
        .struct_size = any_size(sizeof handler),
        .fn = one_in(20) ? NULL : on_event,
        .buffer_fn = one_in(3) ? on_buffer : NULL,
    };
    char address[28];
    int r;

    /* Without a `destroyed`, so that the count stays right: the old one is called. */
    r = fdmux_stream_set_handler(any_loop(), any_token(), or_null(&handler));
    (void)JUDGE("set_handler", r, -EIDRM);
    r = fdmux_stream_await_writable(any_loop(), any_token(), below(70000));
    (void)JUDGE("await_writable", r, -EIDRM);
    r = fdmux_stream_peer(any_loop(), any_token(), or_null(address), below(29));
    (void)JUDGE("peer", r, -EIDRM, -ENOSPC);
    r = fdmux_stream_set_prefetch(any_loop(), one_in(20) ? NULL : on_event,
                                  one_in(3) ? NULL : on_prefetch);
    (void)JUDGE("set_prefetch", r, -EINVAL);
}

static void try_hold(void)
{
    static const struct fdmux_hold bad = {.leave = on_leave};
    struct fdmux_hold *hold = &world.holds[below(HOLD_COUNT)];
    int r = fdmux_loop_hold(any_loop(), one_in(30) ? &bad : or_null(hold));

    (void)JUDGE("hold", r, -EPERM, -ENOSPC);
    r = fdmux_loop_set_return(any_loop(), one_in(2) ? on_batch_end : NULL, NULL);
    (void)JUDGE("set_return", r, -EINVAL);
}

/* ---- descriptors and loops ------------------------------------------------------- */

/* Replace descriptors, sometimes while they are watched. */
static void replace_fds(void)
{
    uint32_t index = below(FD_COUNT / 2) * 2;
    int *fds = &world.fds[index];

    if (fds[0] >= 0) {
        CHECK_EQ(close(fds[0]), 0);
        CHECK_EQ(close(fds[1]), 0);
    }
    if (one_in(2))
        open_sockets(fds);
    else
        CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void feed_something(void)
{
    (void)!write(world.fds[below(FD_COUNT)], "x", 1); /* may fail */
    if (one_in(50))
        replace_fds();
}

static void reopen(struct fdmux_loop **loop)
{
    fdmux_loop_destroy(*loop);
    *loop = check_open_loop();
}

/* Inside a function, only close the loop: a dispatch may still need its memory. */
static void close_something(void)
{
    struct fdmux_loop **loop = &world.loops[below(LOOP_COUNT)];

    CHECK_EQ(fdmux__loop_close(*loop), 0);
    if (world.depth == 0)
        reopen(loop);
}

/* Replace a loop that was closed earlier: until then its calls returned -ESTALE. */
static void reopen_something(void)
{
    struct fdmux_loop **loop = &world.loops[below(LOOP_COUNT)];

    if (atomic_load(&(*loop)->is_closed))
        reopen(loop);
}

static void call_something(void)
{
    static void (*const tries[])(void) = {
        try_io_add,   try_io_add,    try_io_change,      try_remove,
        try_post,     try_timer_add, try_timer_arm,      try_timer_arm,
        try_write,    try_hook_add,  try_asking,         try_stream_add,
        try_write,    try_hold,      try_stream_address, try_stream_verb,
        try_dispatch, try_dispatch,  try_dispatch,       feed_something,
        try_borrow,   try_handler,   try_at_close,
    };

    tries[below(sizeof tries / sizeof *tries)]();
    if (one_in(1000))
        close_something();
}

/* ---- the cases ------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

static void open_world(uint64_t seed)
{
    world = (struct world){.random = seed};
    for (int i = 0; i < FD_COUNT; i += 2)
        open_sockets(&world.fds[i]);
    for (int i = 0; i < STREAM_MAX; i++)
        world.peers[i] = -1;
    for (int i = 0; i < LOAN_MAX; i++)
        world.loans[i].fd = -1;
    for (int i = 0; i < HOLD_COUNT; i++)
        world.holds[i] = (struct fdmux_hold){on_enter, on_leave, &world.holds[i]};
    for (int i = 0; i < LOOP_COUNT; i++)
        world.loops[i] = check_open_loop();
}

static void verify_world(void)
{
    for (int i = 0; i < LOOP_COUNT; i++) {
        if (!atomic_load(&world.loops[i]->is_closed))
            verify_streams(world.loops[i]);
    }
}

/* What runs at the end of one loop calls all of them: none is freed before. */
static void close_world(void)
{
    for (int i = 0; i < LOOP_COUNT; i++)
        CHECK_EQ(fdmux__loop_close(world.loops[i]), 0);
    for (int i = 0; i < LOOP_COUNT; i++)
        fdmux_loop_destroy(world.loops[i]);
    for (int i = 0; i < LOAN_MAX; i++)
        CHECK(world.loans[i].fd < 0 || close(world.loans[i].fd) == 0);
    for (int i = 0; i < FD_COUNT; i++)
        CHECK_EQ(close(world.fds[i]), 0);
    for (int i = 0; i < STREAM_MAX; i++)
        CHECK(world.peers[i] < 0 || close(world.peers[i]) == 0);
    CHECK_EQ(world.destroyed, world.accepted);
    CHECK_EQ(world.post_runs, world.posted);
    CHECK_EQ(world.held, 0);
}

TEST(random_calls_succeed_or_return_what_the_headers_say)
{
    uint64_t seed = setting("FDMUX_TEST_SEED", 20240229);
    uint64_t count = setting("FDMUX_TEST_CALLS", CALLS_DEFAULT);

    (void)printf("FDMUX_TEST_SEED=%llu\n", (unsigned long long)seed);
    (void)fflush(stdout); /* keep the output if the process crashes */
    open_world(seed);
    for (uint64_t i = 0; i < count; i++) {
        call_something();
        if (one_in(30))
            reopen_something();
        if (i % VERIFY_EVERY == 0)
            verify_world();
    }
    verify_world();
    CHECK(world.successes > world.refusals / 8);
    CHECK(world.refusals > world.successes / 8);
    close_world();
}
