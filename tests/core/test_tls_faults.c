/* test_tls_faults.c: each system call, each allocation and each function of OpenSSL of
 * a scenario fails once, then from there on.
 *
 * Whatever fails: nothing leaks, no plaintext is on the wire, `destroyed` is called
 * once for each stream, and the loop works afterwards. */
#include "tls_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

/* Two streams of one loop; a tap between them sees the wire. */
struct scene {
    struct fdmux_loop *loop;
    struct witness ends[2];
    SSL *ssls[2];
    uint64_t streams[2];
    int taps[2];
};

static void tap(struct scene *scene)
{
    for (int i = 0; i < 2; i++) {
        char bytes[65536];
        ssize_t count = recv(scene->taps[i], bytes, sizeof bytes, MSG_DONTWAIT);

        if (count > 0) {
            CHECK(memmem(bytes, (size_t)count, SECRET, strlen(SECRET)) == NULL);
            (void)send(scene->taps[1 - i], bytes, (size_t)count,
                       MSG_NOSIGNAL | MSG_DONTWAIT);
        } else if (count == 0) {
            (void)shutdown(scene->taps[1 - i], SHUT_WR);
        }
    }
}

static void serve_some(struct scene *scene)
{
    for (int i = 0; i < 12; i++) {
        (void)serve(scene->loop);
        tap(scene);
    }
}

static void open_end(struct scene *scene, int i,
                     const struct fdmux_tls_functions *functions)
{
    struct fdmux_stream_options stream = options_for(scene->loop, &scene->ends[i]);
    struct fdmux_tls_options options;
    int fds[2];

    open_sockets(fds);
    scene->taps[i] = fds[1];
    scene->ssls[i] = new_ssl(i == 1, 0);
    if (fdmux_stream_add(scene->loop, fds[0], &stream, &scene->streams[i]) < 0) {
        CHECK_EQ(close(fds[0]), 0);
        return;
    }
    options = tls_options(scene->ssls[i]);
    options.functions = functions;
    options.handshake_timeout_ms = 60000;
    if (fdmux_stream_start_tls(scene->loop, scene->streams[i], &options) < 0)
        (void)fdmux_stream_close(scene->loop, scene->streams[i], FDMUX_STREAM_DROP);
}

/* Which call is to fail. Of OpenSSL's functions if `kinds` is 0. */
struct plan {
    uint32_t kinds;
    int error;
    enum fault_of function;
    int nth;
    int persistent;
};

static void arm(const struct plan *plan)
{
    if (plan->kinds != 0)
        fdmux_testing_fail(plan->kinds, plan->nth, plan->error, plan->persistent);
    else
        fail_openssl(plan->function, plan->nth, plan->persistent != 0);
}

/* Returns how many calls of these kinds the scenario made. */
static int64_t run(const struct plan *plan)
{
    const struct fdmux_tls_functions *functions =
        plan->kinds == 0 ? &failing_openssl : &openssl;
    static unsigned char bytes[30000];
    struct scene scene = {.ends[1].reaction = echo};
    int fds_before = check_open_fds();
    int64_t calls;

    for (size_t i = 0; i + strlen(SECRET) < sizeof bytes; i += strlen(SECRET))
        memcpy(bytes + i, SECRET, strlen(SECRET));
    scene.loop = check_open_loop();
    arm(plan);
    for (int i = 0; i < 2; i++)
        open_end(&scene, i, functions);
    (void)fdmux_stream_write(scene.loop, scene.streams[0], SECRET, sizeof SECRET);
    serve_some(&scene);
    (void)fdmux_stream_write(scene.loop, scene.streams[0], bytes, sizeof bytes);
    serve_some(&scene);
    (void)fdmux_stream_shutdown(scene.loop, scene.streams[0]);
    serve_some(&scene);
    (void)fdmux_stream_close(scene.loop, scene.streams[1], 0);
    serve_some(&scene);
    calls = plan->kinds == 0 ? openssl_calls() : fdmux_testing_calls();
    fdmux_testing_fail(0, 0, 0, 0);
    fail_openssl(FAULT_COUNT, 0, false);
    serve_some(&scene);
    CHECK_EQ(fdmux_loop_dispatch(scene.loop, 0, NULL, 0), 0);
    fdmux_loop_destroy(scene.loop);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(scene.ends[i].destroyed, scene.streams[i] != 0);
        SSL_free(scene.ssls[i]);
        CHECK_EQ(close(scene.taps[i]), 0);
    }
    CHECK_EQ(fdmux_testing_allocations(), 0);
    CHECK_EQ(check_open_fds(), fds_before);
    return calls;
}

static void fail_each(struct plan plan)
{
    for (plan.persistent = 0; plan.persistent < 2; plan.persistent++) {
        plan.nth = 1;
        while (run(&plan) >= plan.nth)
            plan.nth++;
        CHECK(plan.nth > 1); /* something was there to fail */
    }
}

TEST(memory_fails)
{
    fail_each((struct plan){.kinds = FDMUX_CALL_MEMORY, .error = ENOMEM});
}

TEST(receiving_fails)
{
    fail_each((struct plan){.kinds = FDMUX_CALL_RECV, .error = ECONNRESET});
}

TEST(sending_fails)
{
    fail_each((struct plan){.kinds = FDMUX_CALL_SEND, .error = EPIPE});
}

TEST(the_kernel_is_out_of_buffers)
{
    fail_each((struct plan){.kinds = FDMUX_CALL_SEND, .error = ENOBUFS});
}

TEST(closing_fails)
{
    fail_each((struct plan){.kinds = FDMUX_CALL_CLOSE, .error = EIO});
}

SET_TEST(the_set_refuses)
{
    fail_each((struct plan){.kinds = CALL_SET_CHANGE, .error = ENOMEM});
}

TEST(each_function_of_openssl_fails)
{
    for (int function = 0; function < FAULT_COUNT; function++)
        fail_each((struct plan){.function = (enum fault_of)function});
}
