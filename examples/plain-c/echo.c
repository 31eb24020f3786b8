/* echo.c: an echo service on streams: it sends back what it receives.
 *
 *     ./echo [PORT]      on 127.0.0.1; 0, the default, lets the kernel choose
 *
 * Prints its address, and serves until SIGINT or SIGTERM. */
#define _GNU_SOURCE
#include <fdmux.h>
#include <fdmux_stream.h>

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IDLE_NS (INT64_C(60) * 1000000000)

/* Used by the signal handler only. */
static struct fdmux_loop *the_loop;

static void on_signal(int number)
{
    (void)number;
    (void)fdmux_loop_stop(the_loop); /* allowed in signal handlers */
}

/* The function of every stream: accepted streams get that of their listener. */
static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    (void)userdata;
    if (event->kind == FDMUX_STREAM_DATA)
        /* A failure closes the stream, and its CLOSED event reports the error. */
        (void)fdmux_stream_write(loop, event->stream, event->data, event->length);
    else if (event->kind == FDMUX_STREAM_END)
        (void)fdmux_stream_close(loop, event->stream, 0); /* sends the queue first */
    return 0;
}

static int listen_at(struct fdmux_loop *loop, uint16_t port, uint64_t *ret_listener)
{
    struct fdmux_stream_address address = {.struct_size = sizeof address};
    struct fdmux_stream_options options = {.struct_size = sizeof options};

    address.host = "127.0.0.1";
    address.port = port;
    options.fn = on_event;
    options.connection_max = 1000;
    options.idle_timeout_ns = options.stall_timeout_ns = IDLE_NS;
    return fdmux_stream_listen_at(loop, &address, &options, ret_listener);
}

static void announce(struct fdmux_loop *loop, uint64_t listener)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;

    /* Cannot fail: the listener is live. */
    (void)getsockname(fdmux_stream_fd(loop, listener), (struct sockaddr *)&address,
                      &size);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    (void)fflush(stdout); /* the reader may have ended; serve anyway */
}

static void say_goodbye(struct fdmux_loop *loop, uint64_t listener)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};

    if (fdmux_stream_stats(loop, listener, &stats) == 0)
        printf("%llu connections, %llu bytes back\n",
               (unsigned long long)stats.accepted, (unsigned long long)stats.sent);
}

static int serve(struct fdmux_loop *loop, uint16_t port)
{
    struct sigaction action = {.sa_handler = on_signal};
    uint64_t listener;
    int r = listen_at(loop, port, &listener);

    if (r < 0)
        return r;
    the_loop = loop;
    (void)sigaction(SIGINT, &action, NULL); /* both numbers are valid */
    (void)sigaction(SIGTERM, &action, NULL);
    announce(loop, listener);
    r = fdmux_loop_run(loop);
    say_goodbye(loop, listener);
    return r;
}

int main(int count, char **arguments)
{
    long port = count > 1 ? strtol(arguments[1], NULL, 10) : 0;
    struct fdmux_loop *loop = NULL;
    int r = fdmux_loop_create(NULL, &loop);

    if (r == 0)
        r = serve(loop, (uint16_t)port);
    fdmux_loop_destroy(loop);
    if (r < 0)
        (void)fprintf(stderr, "echo on port %ld: %s\n", port, strerror(-r));
    return r < 0 ? 1 : 0;
}
