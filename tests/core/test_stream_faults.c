/* test_stream_faults.c: each system call and allocation of a scenario with streams
 * fails, once or from then on, until a run makes fewer calls than the number of the
 * call to fail.
 *
 * After any fault: a negative errno or a CLOSED event, valid structures, no leaks,
 * `destroyed` once for each stream that was made, and a loop that works afterwards.
 * Each case runs twice: with default options, and with handlers and buffers per
 * stream. */
#include "stream_fixtures.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 3, MESSAGE = 3000, ROUNDS = 8 };

struct plan {
    uint32_t kinds;
    int error;
    int persistent;
    int64_t nth;
};

struct scene {
    struct fdmux_loop *loop;
    struct plan plan;
    bool has_handlers;
    int handler_count; /* accepted streams that got a handler */
    struct witness server;
    struct witness accepted;
    struct witness clients[CLIENTS];
    uint64_t listener; /* 0: creating it failed */
    uint64_t streams[CLIENTS];
    char path[100];
};

static int check_result(const struct scene *scene, int r)
{
    bool is_expected = r >= 0 || r == -scene->plan.error || r == -ENOMEM ||
                       r == -EPIPE || r == -ENOENT || r == -EIDRM || r == -ECONNREFUSED;

    if (!is_expected)
        check_fail(__FILE__, __LINE__, "call %lld of 0x%x with errno %d, %d: %d",
                   (long long)scene->plan.nth, scene->plan.kinds, scene->plan.error,
                   scene->plan.persistent, r);
    return r;
}

static void serve_some(struct scene *scene)
{
    for (int i = 0; i < ROUNDS; i++)
        (void)check_result(scene, serve(scene->loop));
}

static int name_buffer(struct fdmux_loop *loop, uint64_t stream, void **ret_buffer,
                       size_t *ret_size, void *userdata)
{
    static unsigned char buffer[MESSAGE / 2];

    (void)loop, (void)stream, (void)userdata;
    *ret_buffer = buffer;
    *ret_size = sizeof buffer;
    return 0;
}

static void set_handler(struct scene *scene, uint64_t stream)
{
    struct fdmux_stream_handler handler = {
        .struct_size = sizeof handler,
        .fn = note_event,
        .buffer_fn = name_buffer,
        .userdata = &scene->accepted,
        .destroyed = note_destroyed,
    };

    if (check_result(scene, fdmux_stream_set_handler(scene->loop, stream, &handler)) ==
        0)
        scene->handler_count++;
}

static int answer(struct witness *witness, const struct fdmux_stream_event *event)
{
    struct scene *scene = witness->extra;
    struct fdmux_loop *loop = witness->loop;

    if (event->kind == FDMUX_STREAM_ACCEPTED && scene->has_handlers)
        set_handler(scene, event->stream);
    if (event->kind == FDMUX_STREAM_DATA)
        (void)check_result(
            scene, fdmux_stream_write(loop, event->stream, event->data, event->length));
    if (event->kind == FDMUX_STREAM_END)
        (void)check_result(scene, fdmux_stream_close(loop, event->stream, 0));
    return 0;
}

/* ---- the steps ----------------------------------------------------------------- */

#if defined(_WIN32)
/* Not every Windows has Unix sockets. Port 0 before there is a listener, and its port
 * then; port 1 if there is none. */
static void name_address(const struct scene *scene, struct fdmux_stream_address *where)
{
    struct sockaddr_in bound = {.sin_port = htons(1)};
    socklen_t size = sizeof bound;
    int fd = fdmux_stream_fd(scene->loop, scene->listener);

    if (fd >= 0)
        CHECK_EQ(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    where->port = where->host == NULL ? 0 : ntohs(bound.sin_port);
    where->host = "127.0.0.1";
}
#else
static void name_address(const struct scene *scene, struct fdmux_stream_address *where)
{
    where->path = scene->path;
}
#endif

static void open_all(struct scene *scene)
{
    struct fdmux_stream_address where = {.struct_size = sizeof where};
    struct fdmux_loop *loop = scene->loop;
    struct fdmux_stream_options options = options_for(loop, &scene->server);

    scene->server.reaction = scene->accepted.reaction = answer;
    scene->server.extra = scene->accepted.extra = scene;
    scene->accepted.loop = loop;
    name_address(scene, &where);
    (void)check_result(
        scene, fdmux_stream_listen_at(loop, &where, &options, &scene->listener));
    name_address(scene, &where);
    for (int i = 0; i < CLIENTS; i++) {
        options = options_for(loop, &scene->clients[i]);
        options.idle_timeout_ns = 60000 * MS;
        options.buffer_fn = scene->has_handlers ? name_buffer : NULL;
        if (check_result(scene, fdmux_stream_connect_to(loop, &where, &options,
                                                        &scene->streams[i])) < 0)
            CHECK_EQ(scene->streams[i], 0);
    }
    serve_some(scene);
}

static void talk(struct scene *scene)
{
    static unsigned char bytes[MESSAGE];
    struct fdmux_stream_write_op ops[CLIENTS];

    for (int i = 0; i < CLIENTS; i++)
        ops[i] = (struct fdmux_stream_write_op){scene->streams[i], bytes, MESSAGE};
    (void)check_result(scene, fdmux_stream_write_batch(scene->loop, ops, CLIENTS));
    serve_some(scene);
}

/* Write more than the kernel takes, to a client that does not read at first. */
static void pile_up(struct scene *scene)
{
    static unsigned char bytes[1000];
    struct fdmux_loop *loop = scene->loop;
    int fd = fdmux_stream_fd(loop, scene->server.token);

    for (int i = 0; i < CLIENTS; i++)
        (void)check_result(scene, fdmux_stream_pause(loop, scene->streams[i]));
    if (fd >= 0)
        set_buffer(fd, SO_SNDBUF, 4096);
    for (int i = 0; i < 20; i++)
        (void)check_result(
            scene, fdmux_stream_write(loop, scene->server.token, bytes, sizeof bytes));
    if (scene->has_handlers)
        (void)check_result(scene,
                           fdmux_stream_await_writable(loop, scene->server.token, 0));
    serve_some(scene);
    for (int i = 0; i < CLIENTS; i++)
        (void)check_result(scene, fdmux_stream_resume(loop, scene->streams[i]));
    serve_some(scene);
}

static void close_all(struct scene *scene)
{
    struct fdmux_loop *loop = scene->loop;

    (void)check_result(scene, fdmux_stream_shutdown(loop, scene->streams[0]));
    serve_some(scene);
    (void)check_result(scene, fdmux_stream_close(loop, scene->streams[1], 0));
    (void)check_result(scene,
                       fdmux_stream_close(loop, scene->streams[2], FDMUX_STREAM_DROP));
    serve_some(scene);
    (void)check_result(scene, fdmux_stream_close(loop, scene->listener, 0));
    serve_some(scene);
}

/* ---- afterwards ---------------------------------------------------------------- */

static void check_usable(struct scene *scene)
{
    struct fdmux_loop *loop = scene->loop;
    struct witness witness = {0};
    int fds[2];

    serve_some(scene);
    open_sockets(fds);
    (void)add_stream(loop, fds[0], &witness);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    serve_until(loop, &witness.counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(close(fds[1]), 0);
    serve_until(loop, &witness.counts[FDMUX_STREAM_END], 1);
    CHECK_EQ(fdmux_stream_total_max(loop, 1 << 20), 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(witness.destroyed, 1);
}

static void check_ends(const struct scene *scene)
{
    CHECK_EQ(scene->server.destroyed, scene->listener != 0);
    CHECK_EQ(scene->accepted.destroyed, scene->handler_count);
    for (int i = 0; i < CLIENTS; i++) {
        CHECK_EQ(scene->clients[i].destroyed, scene->streams[i] != 0);
        CHECK(scene->clients[i].counts[FDMUX_STREAM_CLOSED] <= 1);
    }
}

/* Returns how many calls of these kinds the scenario made. */
static int64_t run(struct plan plan, bool has_handlers)
{
    struct scene *scene = calloc(1, sizeof *scene);
    int fds_before = check_open_fds();
    int64_t calls;

    scene->loop = check_open_loop();
    scene->plan = plan;
    scene->has_handlers = has_handlers;
    snprintf(scene->path, sizeof scene->path, "/tmp/fdmux-faults-%d.sock",
             (int)getpid());
    fdmux_testing_fail(plan.kinds, plan.nth, plan.error, plan.persistent);
    open_all(scene);
    talk(scene);
    pile_up(scene);
    close_all(scene);
    calls = fdmux_testing_calls();
    fdmux_testing_fail(0, 0, 0, 0);
    (void)unlink(scene->path); /* absent if bind(2) failed */
    check_usable(scene);
    check_ends(scene);
    CHECK_EQ(fdmux_testing_allocations(), 0);
    CHECK_EQ(check_open_fds(), fds_before);
    free(scene);
    return calls;
}

static void fail_each(uint32_t kinds, int error, int persistent)
{
    for (int i = 0; i < 2; i++) {
        struct plan plan = {kinds, error, persistent, 1};

        while (run(plan, i == 1) >= plan.nth)
            plan.nth++;
        CHECK(plan.nth > 1); /* at least one call was made to fail */
        printf("injections: %lld\n", (long long)plan.nth - 1);
    }
}

TEST(memory_fails_once)
{
    fail_each(FDMUX_CALL_MEMORY, ENOMEM, 0);
}

TEST(memory_fails_for_ever)
{
    fail_each(FDMUX_CALL_MEMORY, ENOMEM, 1);
}

TEST(accept_fails_once)
{
    fail_each(FDMUX_CALL_ACCEPT, EMFILE, 0);
}

TEST(accept_fails_for_ever)
{
    fail_each(FDMUX_CALL_ACCEPT, EMFILE, 1);
}

TEST(sockets_fail_once)
{
    fail_each(FDMUX_CALL_SOCKET, EMFILE, 0);
}

TEST(sockets_fail_for_ever)
{
    fail_each(FDMUX_CALL_SOCKET, EMFILE, 1);
}

TEST(receiving_fails_once)
{
    fail_each(FDMUX_CALL_RECV, ECONNRESET, 0);
}

TEST(receiving_fails_for_ever)
{
    fail_each(FDMUX_CALL_RECV, ECONNRESET, 1);
}

TEST(sending_fails_once)
{
    fail_each(FDMUX_CALL_SEND, EPIPE, 0);
}

TEST(sending_fails_for_ever)
{
    fail_each(FDMUX_CALL_SEND, EPIPE, 1);
}

TEST(the_kernel_is_out_of_buffers_for_ever)
{
    fail_each(FDMUX_CALL_SEND, ENOBUFS, 1);
}

SET_TEST(the_set_refuses_once)
{
    fail_each(CALL_SET_CHANGE, ENOMEM, 0);
}

SET_TEST(the_set_refuses_for_ever)
{
    fail_each(CALL_SET_CHANGE, ENOMEM, 1);
}

SLOW_TEST(waiting_fails_once)
{
    fail_each(FDMUX_CALL_WAIT | FDMUX_CALL_PWAIT2, EIO, 0);
}

TEST(closing_fails_for_ever)
{
    fail_each(FDMUX_CALL_CLOSE, EIO, 1);
}
