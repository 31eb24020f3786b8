/* datagrams.c: sends back the datagrams that it receives, in batches.
 *
 *     ./datagrams [PORT]      UDP on 127.0.0.1; 0, the default, lets the kernel choose
 *
 * Prints its address, and serves until SIGINT or SIGTERM. */
#define _GNU_SOURCE
#include <fdmux.h>
#include <fdmux_datagram.h>

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Used by the signal handler only. */
static struct fdmux_loop *the_loop;

static void on_signal(int number)
{
    (void)number;
    (void)fdmux_loop_stop(the_loop); /* allowed in signal handlers */
}

static int echo(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                void *userdata)
{
    (void)userdata;
    if (event->kind == FDMUX_DATAGRAM_RECEIVED)
        /* What was received can be sent as it is, back to where it came from. */
        (void)fdmux_datagram_send_many(loop, event->endpoint, event->datagrams,
                                       event->count);
    return 0;
}

static int bind_at(struct fdmux_loop *loop, uint16_t port, uint64_t *ret_endpoint)
{
    struct fdmux_datagram_address address = {.struct_size = sizeof address};
    struct fdmux_datagram_options options = {.struct_size = sizeof options};

    address.host = "127.0.0.1";
    address.port = port;
    options.fn = echo;
    return fdmux_datagram_bind(loop, &address, &options, ret_endpoint);
}

static void announce(struct fdmux_loop *loop, uint64_t endpoint)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;

    /* Cannot fail: the endpoint is live. */
    (void)getsockname(fdmux_datagram_fd(loop, endpoint), (struct sockaddr *)&address,
                      &size);
    printf("receiving at 127.0.0.1:%d\n", ntohs(address.sin_port));
    (void)fflush(stdout); /* the reader may have ended; serve anyway */
}

static void say_goodbye(struct fdmux_loop *loop, uint64_t endpoint)
{
    struct fdmux_datagram_stats stats = {.struct_size = sizeof stats};

    if (fdmux_datagram_stats(loop, endpoint, &stats) == 0)
        printf("%llu datagrams, %llu back\n", (unsigned long long)stats.received,
               (unsigned long long)stats.sent);
}

static int serve(struct fdmux_loop *loop, uint16_t port)
{
    struct sigaction action = {.sa_handler = on_signal};
    uint64_t endpoint;
    int r = bind_at(loop, port, &endpoint);

    if (r < 0)
        return r;
    the_loop = loop;
    (void)sigaction(SIGINT, &action, NULL); /* both numbers are valid */
    (void)sigaction(SIGTERM, &action, NULL);
    announce(loop, endpoint);
    r = fdmux_loop_run(loop);
    say_goodbye(loop, endpoint);
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
        (void)fprintf(stderr, "datagrams on port %ld: %s\n", port, strerror(-r));
    return r < 0 ? 1 : 0;
}
