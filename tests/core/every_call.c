/* every_call.c: see every_call.h. */
#include "every_call.h"

#include <sys/socket.h>
#include <unistd.h>

static int call_fd(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_fd(loop);
}

static int call_handle(struct fdmux_loop *loop, uint64_t token)
{
    void *handle;

    (void)token;
    return fdmux_loop_handle(loop, &handle);
}

static int call_next_deadline(struct fdmux_loop *loop, uint64_t token)
{
    int64_t deadline_ns;

    (void)token;
    return fdmux_loop_next_deadline(loop, &deadline_ns);
}

static int call_dispatch(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_dispatch(loop, 0, NULL, 0);
}

static int call_run(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_run(loop);
}

static int call_stop(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_stop(loop);
}

static int call_wake(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_wake(loop);
}

static int call_stats(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};

    (void)token;
    return fdmux_loop_stats(loop, &stats);
}

static int call_after_fork(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_after_fork(loop);
}

static int call_io_add(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_io_options options = {.struct_size = sizeof options};
    struct channel channel = open_channel();
    int r;

    options.fd = channel.read_fd;
    options.fn = count_io;
    r = fdmux_io_add(loop, &options, &token);
    if (r == 0)
        CHECK_EQ(fdmux_io_remove(loop, token), 0);
    close_channel(&channel);
    return r;
}

static int call_io_update(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_io_update(loop, token, FDMUX_READ);
}

static int call_io_replace_fd(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_io_replace_fd(loop, token, 0, FDMUX_READ);
}

static int call_io_fd(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_io_fd(loop, token);
}

static int call_io_remove(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_io_remove(loop, token);
}

static int call_timer_add(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options,
                                          .flags = FDMUX_COLLECT};

    return fdmux_timer_add(loop, &options, &token);
}

static int call_timer_arm(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_timer_arm(loop, token, 1, 1);
}

static int call_timer_arm_in(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_timer_arm_in(loop, token, 1, 1);
}

static int call_timer_cancel(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_timer_cancel(loop, token);
}

static int call_timer_remove(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_timer_remove(loop, token);
}

static int do_nothing(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    return 0;
}

static void *enter_nothing(void *userdata)
{
    return userdata;
}

static void leave_nothing(void *held, void *userdata)
{
    CHECK(held == userdata);
}

static int call_hold(struct fdmux_loop *loop, uint64_t token)
{
    static const struct fdmux_hold hold = {enter_nothing, leave_nothing, NULL};

    (void)token;
    return fdmux_loop_hold(loop, &hold);
}

static int call_set_return(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_loop_set_return(loop, do_nothing, NULL);
}

static int call_post(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_post(loop, do_nothing, NULL);
}

static int hook_nothing(struct fdmux_loop *loop, uint64_t hook, void *userdata)
{
    (void)loop, (void)hook, (void)userdata;
    return 0;
}

static int call_hook_add(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_hook_options options = {sizeof options, hook_nothing, NULL, NULL};

    return fdmux_hook_add(loop, &options, &token);
}

static int call_hook_remove(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_hook_remove(loop, token);
}

static void close_nothing(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
}

static int call_at_close(struct fdmux_loop *loop, uint64_t token)
{
    int r = fdmux_loop_at_close(loop, close_nothing, NULL, &token);

    if (r == 0)
        CHECK_EQ(fdmux_hook_remove(loop, token), 0);
    return r;
}

static int call_total_max(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_stream_total_max(loop, 1 << 20);
}

static int ignore_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                        void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

static const struct fdmux_stream_options plain_stream = {
    .struct_size = sizeof plain_stream,
    .fn = ignore_event,
};

/* The three functions that take a socket own it on success. */
typedef int (*take_socket_fn)(struct fdmux_loop *loop, int fd,
                              const struct fdmux_stream_options *options,
                              uint64_t *ret_stream);

static int take_socket(take_socket_fn take, struct fdmux_loop *loop)
{
    uint64_t stream = 7;
    int fds[2];
    int r;

    open_sockets(fds);
    r = take(loop, fds[0], &plain_stream, &stream);
    if (r < 0) {
        CHECK_EQ(stream, 7);
        CHECK_EQ(close(fds[0]), 0);
    }
    CHECK_EQ(close(fds[1]), 0);
    return r;
}

static int call_stream_add(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return take_socket(fdmux_stream_add, loop);
}

static int call_stream_listen(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return take_socket(fdmux_stream_listen, loop);
}

static int call_stream_connect(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return take_socket(fdmux_stream_connect, loop);
}

static int call_listen_at(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_address address = {
        .struct_size = sizeof address,
        .host = "127.0.0.1",
    };

    return fdmux_stream_listen_at(loop, &address, &plain_stream, &token);
}

/* Port 9 of loopback, where nothing listens or a discard service does. */
static int call_connect_to(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_address address = {
        .struct_size = sizeof address,
        .host = "127.0.0.1",
        .port = 9,
    };

    return fdmux_stream_connect_to(loop, &address, &plain_stream, &token);
}

static int call_stream_write(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_write(loop, token, "x", 1);
}

/* The batch skips closed streams: it writes 0 bytes and returns no error. */
static int call_write_batch(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_write_op op = {token, "x", 1};

    return fdmux_stream_write_batch(loop, &op, 1);
}

static int call_stream_shutdown(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_shutdown(loop, token);
}

static int call_stream_pause(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_pause(loop, token);
}

static int call_stream_resume(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_resume(loop, token);
}

static int call_stream_close(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_close(loop, token, 0);
}

static int call_stream_fd(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_fd(loop, token);
}

static int call_stream_stats(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    return fdmux_stream_stats(loop, token, &stats);
}

static int call_set_handler(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_handler handler = {.struct_size = sizeof handler,
                                           .fn = ignore_event};

    return fdmux_stream_set_handler(loop, token, &handler);
}

static int call_await_writable(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_stream_await_writable(loop, token, 0);
}

static int call_peer(struct fdmux_loop *loop, uint64_t token)
{
    char address[28];

    return fdmux_stream_peer(loop, token, address, sizeof address);
}

static int call_set_prefetch(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_stream_set_prefetch(loop, ignore_event, NULL);
}

/* A library that always wants more bytes. */
static int want(void *ssl)
{
    (void)ssl;
    return -1;
}

static int want_to_read(void *object, void *buffer, int size)
{
    (void)object, (void)buffer, (void)size;
    return -1;
}

static int want_to_write(void *object, const void *data, int length)
{
    (void)object, (void)data, (void)length;
    return -1;
}

static int say_want_read(const void *ssl, int result)
{
    (void)ssl, (void)result;
    return 2; /* SSL_ERROR_WANT_READ */
}

static void clear_error(void)
{
}

static unsigned long no_error(void)
{
    return 0;
}

static char a_bio;

static void set_bio(void *ssl, void *read_bio, void *write_bio)
{
    (void)ssl, (void)read_bio, (void)write_bio;
}

static void set_option(void *object, int value)
{
    (void)object, (void)value;
}

static void *meth_new(int type, const char *name)
{
    (void)type, (void)name;
    return &a_bio;
}

static void meth_free(void *method)
{
    (void)method;
}

static int set_read(void *method, int (*function)(void *, char *, int))
{
    (void)method, (void)function;
    return 1;
}

static int set_write(void *method, int (*function)(void *, const char *, int))
{
    (void)method, (void)function;
    return 1;
}

static int set_ctrl(void *method, long (*function)(void *, int, long, void *))
{
    (void)method, (void)function;
    return 1;
}

static void *bio_new(const void *method)
{
    (void)method;
    return &a_bio;
}

static int call_start_tls(struct fdmux_loop *loop, uint64_t token)
{
    static const struct fdmux_tls_functions functions = {
        sizeof functions, want,        want_to_read, want_to_write, want,
        say_want_read,    clear_error, no_error,     set_bio,       set_option,
        meth_new,         meth_free,   set_read,     set_write,     set_ctrl,
        bio_new,          set_option,  set_option,   set_option,
    };
    static char object;
    struct fdmux_tls_options options = {
        .struct_size = sizeof options,
        .functions = &functions,
        .ssl = &object,
    };

    return fdmux_stream_start_tls(loop, token, &options);
}

static int call_tls_error(struct fdmux_loop *loop, uint64_t token)
{
    uint64_t code;

    return fdmux_stream_tls_error(loop, token, &code);
}

static int call_datagram_features(struct fdmux_loop *loop, uint64_t token)
{
    (void)token;
    return fdmux_datagram_features(loop);
}

static int ignore_datagrams(struct fdmux_loop *loop,
                            const struct fdmux_datagram_event *event, void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

static const struct fdmux_datagram_options plain_endpoint = {
    .struct_size = sizeof plain_endpoint,
    .fn = ignore_datagrams,
};

static int call_datagram_add(struct fdmux_loop *loop, uint64_t token)
{
    int fds[2];
    int r;

    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    token = 7;
    r = fdmux_datagram_add(loop, fds[0], &plain_endpoint, &token);
    if (r < 0) {
        CHECK_EQ(token, 7);
        CHECK_EQ(close(fds[0]), 0);
    }
    CHECK_EQ(close(fds[1]), 0);
    return r;
}

static int call_datagram_bind(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram_address address = {
        .struct_size = sizeof address,
        .host = "127.0.0.1",
    };

    return fdmux_datagram_bind(loop, &address, &plain_endpoint, &token);
}

static int call_datagram_connect(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram_address address = {
        .struct_size = sizeof address,
        .host = "127.0.0.1",
        .port = 9,
    };

    return fdmux_datagram_connect(loop, &address, NULL, &plain_endpoint, &token);
}

static int call_datagram_set_handler(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram_handler handler = {.struct_size = sizeof handler,
                                             .fn = ignore_datagrams};

    return fdmux_datagram_set_handler(loop, token, &handler);
}

static int call_datagram_send(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram datagram = {.data = "x", .length = 1};

    return fdmux_datagram_send(loop, token, &datagram);
}

static int call_datagram_send_many(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram datagram = {.data = "x", .length = 1};

    return fdmux_datagram_send_many(loop, token, &datagram, 1);
}

static int call_datagram_close(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_close(loop, token, 0);
}

static int call_datagram_fd(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_fd(loop, token);
}

static int call_datagram_stats(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

    return fdmux_datagram_stats(loop, token, &stats);
}

static int call_datagram_await_writable(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_await_writable(loop, token, 0);
}

static int call_datagram_queued(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_queued(loop, token);
}

static int call_datagram_pause(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_pause(loop, token);
}

static int call_datagram_resume(struct fdmux_loop *loop, uint64_t token)
{
    return fdmux_datagram_resume(loop, token);
}

const struct call every_call[] = {
    {"loop_fd", KINDLESS, call_fd},
    {"loop_handle", KINDLESS, call_handle},
    {"loop_next_deadline", KINDLESS, call_next_deadline},
    {"loop_dispatch", KINDLESS, call_dispatch},
    {"loop_stop", KINDLESS, call_stop},
    {"loop_run", KINDLESS, call_run}, /* returns at once: stopped before */
    {"loop_wake", KINDLESS, call_wake},
    {"loop_stats", KINDLESS, call_stats},
    {"loop_after_fork", KINDLESS, call_after_fork},
    {"loop_hold", KINDLESS, call_hold},
    {"loop_set_return", KINDLESS, call_set_return},
    {"loop_at_close", KINDLESS, call_at_close},
    {"io_add", KINDLESS, call_io_add},
    {"io_update", IO, call_io_update},
    {"io_replace_fd", IO, call_io_replace_fd},
    {"io_fd", IO, call_io_fd},
    {"io_remove", IO, call_io_remove},
    {"timer_add", KINDLESS, call_timer_add},
    {"timer_arm", TIMER, call_timer_arm},
    {"timer_arm_in", TIMER, call_timer_arm_in},
    {"timer_cancel", TIMER, call_timer_cancel},
    {"timer_remove", TIMER, call_timer_remove},
    {"post", KINDLESS, call_post},
    {"hook_add", KINDLESS, call_hook_add},
    {"hook_remove", HOOK, call_hook_remove},
    {"stream_total_max", KINDLESS, call_total_max},
    {"stream_add", KINDLESS, call_stream_add},
    {"stream_listen", KINDLESS, call_stream_listen},
    {"stream_connect", KINDLESS, call_stream_connect},
    {"stream_listen_at", KINDLESS, call_listen_at},
    {"stream_connect_to", KINDLESS, call_connect_to},
    {"stream_write", STREAM, call_stream_write},
    {"stream_write_batch", KINDLESS, call_write_batch},
    {"stream_shutdown", STREAM, call_stream_shutdown},
    {"stream_pause", STREAM, call_stream_pause},
    {"stream_resume", STREAM, call_stream_resume},
    {"stream_close", STREAM, call_stream_close},
    {"stream_fd", STREAM, call_stream_fd},
    {"stream_stats", STREAM, call_stream_stats},
    {"stream_set_handler", STREAM, call_set_handler},
    {"stream_await_writable", STREAM, call_await_writable},
    {"stream_peer", STREAM, call_peer},
    {"stream_set_prefetch", KINDLESS, call_set_prefetch},
    {"stream_start_tls", STREAM, call_start_tls},
    {"stream_tls_error", STREAM, call_tls_error},
    {"datagram_features", KINDLESS, call_datagram_features},
    {"datagram_add", KINDLESS, call_datagram_add},
    {"datagram_bind", KINDLESS, call_datagram_bind},
    {"datagram_connect", KINDLESS, call_datagram_connect},
    {"datagram_set_handler", ENDPOINT, call_datagram_set_handler},
    {"datagram_send", ENDPOINT, call_datagram_send},
    {"datagram_send_many", ENDPOINT, call_datagram_send_many},
    {"datagram_close", ENDPOINT, call_datagram_close},
    {"datagram_fd", ENDPOINT, call_datagram_fd},
    {"datagram_stats", ENDPOINT, call_datagram_stats},
    {"datagram_await_writable", ENDPOINT, call_datagram_await_writable},
    {"datagram_queued", ENDPOINT, call_datagram_queued},
    {"datagram_pause", ENDPOINT, call_datagram_pause},
    {"datagram_resume", ENDPOINT, call_datagram_resume},
};

const size_t every_call_count = sizeof every_call / sizeof *every_call;

bool is_call(const struct call *call, const char *name)
{
    return strcmp(call->name, name) == 0;
}

int call_by_name(const char *name, struct fdmux_loop *loop, uint64_t token)
{
    size_t i = 0;

    while (!is_call(&every_call[i], name))
        i++;
    return every_call[i].call(loop, token);
}
