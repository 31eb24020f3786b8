/* echo_tls.c: an echo service over TLS: streams of fdmux, sessions of OpenSSL.
 *
 *     ./echo_tls CERTIFICATE KEY [PORT]      on 127.0.0.1; 0 lets the kernel choose
 *
 * Prints its address, and serves until SIGINT or SIGTERM. */
#define _GNU_SOURCE
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <fdmux_tls.h>

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct fdmux_tls_functions openssl = FDMUX_TLS_OPENSSL;
static struct fdmux_loop *the_loop; /* for the signal handler */

static void on_signal(int number)
{
    (void)number;
    (void)fdmux_loop_stop(the_loop); /* allowed in signal handlers */
}

static int on_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                    void *userdata)
{
    SSL *ssl = userdata;

    if (event->kind == FDMUX_STREAM_DATA)
        /* A failure ends that stream, and its CLOSED event will say why. */
        (void)fdmux_stream_write(loop, event->stream, event->data, event->length);
    else if (event->kind == FDMUX_STREAM_END)
        (void)fdmux_stream_close(loop, event->stream, 0); /* after what is queued */
    else if (event->kind == FDMUX_STREAM_CLOSED)
        SSL_free(ssl);
    return 0;
}

/* The stream becomes its own, with its SSL as userdata. */
static int start(struct fdmux_loop *loop, uint64_t stream, SSL *ssl)
{
    struct fdmux_stream_handler handler = {.struct_size = sizeof handler};
    struct fdmux_tls_options options = {.struct_size = sizeof options};

    SSL_set_accept_state(ssl);
    handler.fn = on_event;
    handler.userdata = ssl;
    options.functions = &openssl;
    options.ssl = ssl;
    options.handshake_timeout_ms = 60000;
    (void)fdmux_stream_set_handler(loop, stream, &handler); /* the stream is live */
    return fdmux_stream_start_tls(loop, stream, &options);
}

static int on_accepted(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                       void *userdata)
{
    SSL *ssl = event->kind == FDMUX_STREAM_ACCEPTED ? SSL_new(userdata) : NULL;

    if (event->kind == FDMUX_STREAM_ACCEPTED &&
        (ssl == NULL || start(loop, event->stream, ssl) < 0))
        (void)fdmux_stream_close(loop, event->stream, FDMUX_STREAM_DROP);
    return 0;
}

static int serve(struct fdmux_loop *loop, SSL_CTX *context, uint16_t port)
{
    struct fdmux_stream_address address = {.struct_size = sizeof address};
    struct fdmux_stream_options options = {.struct_size = sizeof options};
    struct sigaction action = {.sa_handler = on_signal};
    struct sockaddr_in bound = {0};
    socklen_t size = sizeof bound;
    uint64_t listener;
    int r;

    address.host = "127.0.0.1";
    address.port = port;
    options.fn = on_accepted;
    options.userdata = context;
    r = fdmux_stream_listen_at(loop, &address, &options, &listener);
    if (r < 0)
        return r;
    the_loop = loop;
    (void)sigaction(SIGINT, &action, NULL); /* both numbers are valid */
    (void)sigaction(SIGTERM, &action, NULL);
    (void)getsockname(fdmux_stream_fd(loop, listener), (struct sockaddr *)&bound,
                      &size); /* the listener is live */
    printf("listening on 127.0.0.1:%d\n", ntohs(bound.sin_port));
    (void)fflush(stdout);
    return fdmux_loop_run(loop);
}

int main(int count, char **arguments)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    uint16_t port = (uint16_t)(count > 3 ? strtol(arguments[3], NULL, 10) : 0);
    struct fdmux_loop *loop = NULL;
    int r = -EINVAL;

    if (count >= 3 && SSL_CTX_use_certificate_chain_file(context, arguments[1]) == 1 &&
        SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) == 1)
        r = fdmux_loop_create(NULL, &loop);
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS); /* 34 KiB less each */
    if (r == 0)
        r = serve(loop, context, port);
    fdmux_loop_destroy(loop); /* ends the streams, which free their sessions */
    SSL_CTX_free(context);
    if (r < 0)
        (void)fprintf(stderr, "echo over TLS: %s\n", strerror(-r));
    return r < 0 ? 1 : 0;
}
