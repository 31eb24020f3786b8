/* test_datagram_faults.c: each system call and allocation of a scenario with datagrams
 * fails, once or from then on, until a run makes fewer calls than the number of the
 * call to fail.
 *
 * After any fault: a negative errno or an event, no leaks, `destroyed` once for each
 * endpoint that was made, and a loop that works afterwards. */
#include "datagram_fixtures.h"

#include <stdio.h>
#include <unistd.h>

enum { MANY = 70, ROUNDS = 4 };

struct plan {
    uint32_t kinds;
    int error;
    int persistent;
    int64_t nth;
};

struct scene {
    struct fdmux_loop *loop;
    struct listener *listener;
    struct plan plan;
    int made; /* endpoints */
    uint64_t server;
    uint64_t client;
    uint64_t local; /* a Unix socket that is not connected */
    uint16_t port;
};

static int check_result(const struct scene *scene, int r)
{
    bool is_expected = r >= 0 || r == -scene->plan.error || r == -ENOMEM ||
                       r == -ENOBUFS || r == -EPIPE || r == -EIDRM;

    if (!is_expected)
        check_fail(__FILE__, __LINE__, "call %lld of 0x%x with errno %d, %d: %d",
                   (long long)scene->plan.nth, scene->plan.kinds, scene->plan.error,
                   scene->plan.persistent, r);
    return r;
}

static void serve_some(struct scene *scene)
{
    for (int i = 0; i < ROUNDS; i++)
        (void)check_result(scene, fdmux_loop_dispatch(scene->loop, 0, NULL, 0));
}

static int answer(struct listener *listener, const struct fdmux_datagram_event *event)
{
    if (event->kind == FDMUX_DATAGRAM_RECEIVED && event->datagrams[0].length == 1)
        (void)fdmux_datagram_send_many(listener->loop, event->endpoint,
                                       event->datagrams, event->count);
    return 0;
}

static void open_all(struct scene *scene)
{
    struct fdmux_datagram_options options = datagram_options(scene->listener);
    struct fdmux_datagram_address where = {.struct_size = sizeof where,
                                           .host = "127.0.0.1"};
    struct sockaddr_in bound = {0};
    socklen_t size = sizeof bound;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    options.flags = FDMUX_DATAGRAM_LOCAL | FDMUX_DATAGRAM_ECN | FDMUX_DATAGRAM_ERRORS |
                    FDMUX_DATAGRAM_GRO;
    scene->made +=
        check_result(scene, fdmux_datagram_bind(scene->loop, &where, &options,
                                                &scene->server)) == 0;
    if (scene->server != 0)
        CHECK_EQ(getsockname(fdmux_datagram_fd(scene->loop, scene->server),
                             (struct sockaddr *)&bound, &size),
                 0);
    where.port = scene->port = scene->server == 0 ? 9 : ntohs(bound.sin_port);
    scene->made +=
        check_result(scene, fdmux_datagram_connect(scene->loop, &where, NULL, &options,
                                                   &scene->client)) == 0;
    options.flags = 0;
    if (check_result(scene,
                     fdmux_datagram_add(scene->loop, fd, &options, &scene->local)) == 0)
        scene->made++;
    else
        CHECK_EQ(close(fd), 0);
}

static void talk(struct scene *scene)
{
    static const char bytes[3000];
    struct fdmux_datagram many[MANY];
    struct fdmux_datagram large = {
        .data = bytes, .length = sizeof bytes, .segment_size = 1000};

    for (int i = 0; i < MANY; i++)
        many[i] = (struct fdmux_datagram){.data = bytes, .length = 1};
    (void)check_result(
        scene, fdmux_datagram_send_many(scene->loop, scene->client, many, MANY));
    serve_some(scene);
    (void)check_result(scene, fdmux_datagram_send(scene->loop, scene->client, &large));
    serve_some(scene);
}

static void close_all(struct scene *scene)
{
    (void)check_result(scene, fdmux_datagram_close(scene->loop, scene->client, 0));
    serve_some(scene);
    (void)check_result(
        scene, fdmux_datagram_close(scene->loop, scene->local, FDMUX_DATAGRAM_DROP));
    serve_some(scene);
}

static void check_usable(struct scene *scene)
{
    struct listener *listener = open_listener(scene->loop);
    uint16_t port;
    uint64_t endpoint;

    serve_some(scene);
    endpoint = bind_loopback(listener, 0, &port);
    CHECK_EQ(send_text(scene->loop, endpoint, port, "works"), 0);
    run_until(scene->loop, &listener->heard_count, 1);
    end_with(scene->loop, listener, 1);
}

/* Returns how many calls of these kinds the scenario made. */
static int64_t run(struct plan plan)
{
    struct scene scene = {.loop = check_open_loop(), .plan = plan};
    int64_t calls;

    scene.listener = open_listener(scene.loop);
    scene.listener->reaction = answer;
    fdmux_testing_fail(plan.kinds, plan.nth, plan.error, plan.persistent);
    open_all(&scene);
    talk(&scene);
    close_all(&scene);
    calls = fdmux_testing_calls();
    fdmux_testing_fail(0, 0, 0, 0);
    check_usable(&scene);
    CHECK_EQ(scene.listener->destroyed, scene.made);
    CHECK_EQ(scene.listener->counts[FDMUX_DATAGRAM_CLOSED], scene.made);
    CHECK_EQ(fdmux_testing_allocations(), 0);
    free(scene.listener);
    return calls;
}

static void fail_each(uint32_t kinds, int error)
{
    for (int persistent = 0; persistent < 2; persistent++) {
        struct plan plan = {kinds, error, persistent, 1};

        while (run(plan) >= plan.nth)
            plan.nth++;
        CHECK(plan.nth > 1); /* at least one call was made to fail */
        printf("injections: %lld\n", (long long)plan.nth - 1);
    }
}

TEST(memory_fails)
{
    fail_each(FDMUX_CALL_MEMORY, ENOMEM);
}

TEST(calls_of_sockets_fail)
{
    fail_each(FDMUX_CALL_SOCKET, EMFILE);
}

TEST(receives_fail)
{
    fail_each(FDMUX_CALL_RECV | FDMUX_CALL_RECVMMSG, EIO);
    fail_each(FDMUX_CALL_RECV | FDMUX_CALL_RECVMMSG, ECONNREFUSED);
    fail_each(FDMUX_CALL_RECV | FDMUX_CALL_RECVMMSG, ENOSYS);
}

TEST(sends_fail)
{
    fail_each(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, EAGAIN);
    fail_each(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, EMSGSIZE);
    fail_each(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, ECONNREFUSED);
    fail_each(FDMUX_CALL_SEND | FDMUX_CALL_SENDMMSG, EIO);
    fail_each(FDMUX_CALL_SENDMMSG, ENOSYS);
}

TEST(closing_descriptors_fails)
{
    fail_each(FDMUX_CALL_CLOSE, EIO);
}

SET_TEST(changes_of_the_kernel_set_fail)
{
    fail_each(CALL_SET_CHANGE, ENOMEM);
}
