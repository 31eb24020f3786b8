/* An echo server over TLS on streams of fdmux, in C: what the layer itself costs.
 *
 *     tls_fdmux CERTIFICATE KEY
 *
 * Prints its port and serves until it is killed or its parent ends. */
#include "echo_socket.h"
#include "tls_server.h"

#include <openssl/err.h>

#include <fdmux_tls.h>

#include <stdlib.h>
#include <string.h>

enum { QUEUE_MAX = 1 << 20 };

static const struct fdmux_tls_functions openssl = FDMUX_TLS_OPENSSL;

static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    if (event->kind == FDMUX_STREAM_DATA)
        /* A failure ends that stream. */
        (void)fdmux_stream_write(loop, event->stream, event->data, event->length);
    else if (event->kind == FDMUX_STREAM_END)
        (void)fdmux_stream_close(loop, event->stream, 0); /* the stream is live */
    else if (event->kind == FDMUX_STREAM_CLOSED)
        SSL_free(userdata);
    return 0;
}

static int start(struct fdmux_loop *loop, uint64_t stream, SSL *ssl)
{
    struct fdmux_stream_handler handler = {.struct_size = sizeof handler};
    struct fdmux_tls_options options = {.struct_size = sizeof options};

    SSL_set_accept_state(ssl);
    handler.fn = on_event;
    handler.userdata = ssl;
    options.functions = &openssl;
    options.ssl = ssl;
    (void)fdmux_stream_set_handler(loop, stream, &handler); /* the stream is live */
    return fdmux_stream_start_tls(loop, stream, &options);
}

static int on_accepted(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                       void *userdata)
{
    SSL *ssl = event->kind == FDMUX_STREAM_ACCEPTED ? SSL_new(userdata) : NULL;

    if (event->kind == FDMUX_STREAM_ACCEPTED &&
        (ssl == NULL || start(loop, event->stream, ssl) < 0))
        (void)fdmux_stream_close(loop, event->stream,
                                 FDMUX_STREAM_DROP); /* the stream is live */
    return 0;
}

int main(int argc, char **argv)
{
    SSL_CTX *context = argc == 3 ? tls_server_context(argv[1], argv[2]) : NULL;
    struct fdmux_stream_options options = {.struct_size = sizeof options};
    struct fdmux_loop *loop = NULL;
    uint64_t listener;
    int listen_fd = echo_listen();
    int r = context == NULL || listen_fd < 0 ? -EINVAL : fdmux_loop_create(NULL, &loop);

    options.fn = on_accepted;
    options.userdata = context;
    options.receive_max = ECHO_BUFFER_SIZE;
    options.queue_max = QUEUE_MAX;
    if (r == 0)
        r = echo_announce(listen_fd);
    if (r == 0)
        r = fdmux_stream_listen(loop, listen_fd, &options, &listener);
    if (r == 0)
        r = fdmux_loop_run(loop);
    (void)fprintf(stderr, "tls_fdmux: %s\n", strerror(-r)); /* failing anyway */
    return EXIT_FAILURE;
}
