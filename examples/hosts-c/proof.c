/* proof.c: the guest of the hosts in this folder (proof.h). */
#define _GNU_SOURCE
#include "proof.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- functions of the loop ------------------------------------------------------- */

/* Arm a new deadline each time, as a library with timeouts does. */
static int on_fast(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct proof *proof = userdata;
    int64_t now_ns = fdmux_loop_now(loop);

    if (now_ns < proof->fast_deadline_ns)
        proof->early_count++;
    if (++proof->fast_count >= FAST_COUNT)
        return 0;
    proof->fast_deadline_ns = now_ns + FAST_NS;
    return fdmux_timer_arm(loop, timer, proof->fast_deadline_ns, 0);
}

static int on_slow(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct proof *proof = userdata;

    if (++proof->slow_count < SLOW_COUNT)
        return 0;
    return fdmux_timer_cancel(loop, timer);
}

/* Read one byte and write the next: one event for each. */
static int on_pipe(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                   void *userdata)
{
    struct proof *proof = userdata;
    char byte;

    (void)events;
    if (read(proof->pipe_fds[0], &byte, 1) != 1)
        return errno == EAGAIN ? 0 : -errno;
    if (++proof->pipe_count == PIPE_COUNT)
        return fdmux_io_remove(loop, io);
    return write(proof->pipe_fds[1], &byte, 1) == 1 ? 0 : -errno;
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    struct proof *proof = userdata;

    if (loop != NULL) /* NULL: the loop was closed before */
        proof->post_count++;
    return 0;
}

static void on_destroyed(void *userdata)
{
    ((struct proof *)userdata)->destroyed_count++;
}

static void *post_all(void *userdata)
{
    struct proof *proof = userdata;

    for (int i = 0; i < POST_COUNT; i++) {
        if (fdmux_post(proof->loop, on_post, proof) < 0)
            break; /* the count will be short */
        (void)usleep(100); /* so that most posts find the loop asleep */
    }
    return NULL;
}

/* ---- start and end --------------------------------------------------------------- */

static int add_timer(struct proof *proof, fdmux_timer_fn fn, int64_t delay_ns,
                     int64_t period_ns, uint64_t *ret_timer)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options};
    int r;

    options.fn = fn;
    options.userdata = proof;
    options.destroyed = on_destroyed;
    r = fdmux_timer_add(proof->loop, &options, ret_timer);
    if (r < 0)
        return r;
    return fdmux_timer_arm(proof->loop, *ret_timer,
                           fdmux_loop_now(proof->loop) + delay_ns, period_ns);
}

static int add_pipe(struct proof *proof)
{
    struct fdmux_io_options options = {.struct_size = sizeof options};

    if (pipe2(proof->pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    if (write(proof->pipe_fds[1], "x", 1) != 1)
        return -errno;
    options.fd = proof->pipe_fds[0];
    options.events = FDMUX_READ;
    options.fn = on_pipe;
    options.userdata = proof;
    options.destroyed = on_destroyed;
    return fdmux_io_add(proof->loop, &options, &proof->io);
}

static int fill(struct proof *proof)
{
    int r = add_timer(proof, on_fast, FAST_NS, 0, &proof->fast);

    if (r == 0)
        r = add_timer(proof, on_slow, SLOW_NS, SLOW_NS, &proof->slow);
    if (r == 0)
        r = add_pipe(proof);
    if (r == 0)
        r = -pthread_create(&proof->poster, NULL, post_all, proof);
    return r;
}

int proof_start(struct proof *proof)
{
    int r;

    *proof = (struct proof){.pipe_fds = {-1, -1}};
    (void)alarm(GIVE_UP_SECONDS); /* SIGALRM ends the program */
    r = fdmux_loop_create(NULL, &proof->loop);
    if (r == 0)
        r = fill(proof);
    if (r < 0) /* the program ends with everything in it */
        (void)fprintf(stderr, "start: %s\n", strerror(-r));
    return r;
}

bool proof_is_complete(const struct proof *proof)
{
    return proof->fast_count >= FAST_COUNT && proof->slow_count >= SLOW_COUNT &&
           proof->pipe_count >= PIPE_COUNT && proof->post_count >= POST_COUNT &&
           proof->host_count >= HOST_COUNT;
}

bool proof_dispatch(struct proof *proof)
{
    int r = fdmux_loop_dispatch(proof->loop, 0, NULL, 0);

    if (r < 0 && r != -EINTR) {
        (void)fprintf(stderr, "dispatch: %s\n", strerror(-r));
        return false;
    }
    return !proof_is_complete(proof);
}

int proof_end(struct proof *proof, const char *host)
{
    bool is_proved;

    (void)pthread_join(proof->poster, NULL); /* the thread was started */
    fdmux_loop_destroy(proof->loop);
    (void)close(proof->pipe_fds[0]);
    (void)close(proof->pipe_fds[1]);
    is_proved = proof_is_complete(proof) && proof->destroyed_count == 3 &&
                proof->early_count == 0;
    printf("%s: %d and %d timers, %d early, %d of the pipe, %d posts, %d of the "
           "host's own: %s\n",
           host, proof->fast_count, proof->slow_count, proof->early_count,
           proof->pipe_count, proof->post_count, proof->host_count,
           is_proved ? "ok" : "WRONG");
    return is_proved ? 0 : 1;
}
