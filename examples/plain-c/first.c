/* first.c: a timer, a pipe and a thread in one loop, in plain C.
 *
 * Prints each event and ends with 0 when all three have come. */
#define _GNU_SOURCE
#include <fdmux.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS INT64_C(1000000)
#define TICK_COUNT 3

struct program {
    struct fdmux_loop *loop;
    int pipe_fds[2];
    int tick_count;
    char received[16];
    char posted[16];
};

/* Stop the loop when the last of the three events has come. */
static int look(struct program *program)
{
    if (program->tick_count >= TICK_COUNT && program->received[0] != '\0' &&
        program->posted[0] != '\0')
        return fdmux_loop_stop(program->loop);
    return 0;
}

static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct program *program = userdata;

    if (++program->tick_count == 1 && write(program->pipe_fds[1], "pipe", 4) != 4)
        return -errno; /* fdmux_loop_run returns it */
    if (program->tick_count == TICK_COUNT)
        (void)fdmux_timer_cancel(loop, timer); /* 1: it was armed */
    return look(program);
}

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct program *program = userdata;
    ssize_t size =
        read(program->pipe_fds[0], program->received, sizeof program->received - 1);

    (void)loop, (void)io, (void)events;
    if (size < 0)
        return errno == EAGAIN ? 0 : -errno;
    return look(program);
}

/* Runs on the loop's thread, with the result of the other thread. */
static int on_posted(struct fdmux_loop *loop, void *userdata)
{
    struct program *program = userdata;

    (void)strcpy(program->posted, "thread");
    return loop == NULL ? 0 : look(program);
}

static void *work(void *userdata)
{
    struct program *program = userdata;

    (void)fdmux_post(program->loop, on_posted, program); /* -ENOMEM: nothing comes */
    return NULL;
}

static int start_timer(struct program *program)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options};
    uint64_t timer;
    int r;

    options.fn = on_tick;
    options.userdata = program;
    r = fdmux_timer_add(program->loop, &options, &timer);
    if (r < 0)
        return r;
    return fdmux_timer_arm(program->loop, timer,
                           fdmux_loop_now(program->loop) + TICK_NS, TICK_NS);
}

static int start_pipe(struct program *program)
{
    struct fdmux_io_options options = {.struct_size = sizeof options};
    uint64_t io;

    if (pipe2(program->pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    options.fd = program->pipe_fds[0];
    options.events = FDMUX_READ;
    options.fn = on_readable;
    options.userdata = program;
    return fdmux_io_add(program->loop, &options, &io);
}

static int run(struct program *program)
{
    pthread_t thread;
    int r = start_timer(program);

    if (r == 0)
        r = start_pipe(program);
    if (r == 0)
        r = -pthread_create(&thread, NULL, work, program);
    if (r != 0)
        return r;
    r = fdmux_loop_run(program->loop);
    (void)pthread_join(thread, NULL); /* it was started */
    return r;
}

int main(void)
{
    struct program program = {.pipe_fds = {-1, -1}};
    int r = fdmux_loop_create(NULL, &program.loop);

    if (r == 0)
        r = run(&program);
    fdmux_loop_destroy(program.loop); /* ends the watchers; accepts NULL */
    (void)close(program.pipe_fds[0]);
    (void)close(program.pipe_fds[1]);
    if (r < 0) {
        (void)fprintf(stderr, "first: %s\n", strerror(-r));
        return 1;
    }
    printf("%d ticks, \"%s\" from the pipe, \"%s\" from the thread\n",
           program.tick_count, program.received, program.posted);
    return 0;
}
