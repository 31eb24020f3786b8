/* What the TLS load generators share: a client that verifies nothing, on a blocking or
 * non-blocking loopback socket, with TCP_NODELAY. */
#ifndef FDMUX_BENCHMARKS_TLS_CLIENT_H
#define FDMUX_BENCHMARKS_TLS_CLIENT_H

#include "echo_socket.h"

#include <openssl/ssl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One thread drives the server, so a receive reads as much as it can. */
static inline SSL_CTX *tls_client_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (context == NULL)
        return NULL;
    SSL_CTX_set_read_ahead(context, 1);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

/* Connects a blocking socket. Returns it, or -errno. */
static inline int tls_client_connect(in_port_t port)
{
    struct sockaddr_in address = echo_loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        r = echo_set_nodelay(fd);
    else
        r = -errno;
    if (r == 0)
        return fd;
    (void)close(fd); /* the first error is the one to report */
    return r;
}

/* Connects, with the handshake. Returns NULL on failure. */
static inline SSL *tls_client_open(SSL_CTX *context, in_port_t port,
                                   SSL_SESSION *session)
{
    int fd = tls_client_connect(port);
    SSL *ssl = fd < 0 ? NULL : SSL_new(context);

    if (ssl != NULL && SSL_set_fd(ssl, fd) == 1 &&
        (session == NULL || SSL_set_session(ssl, session) == 1) &&
        SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    if (fd >= 0)
        (void)close(fd); /* failing anyway */
    return NULL;
}

static inline void tls_client_close(SSL *ssl)
{
    int fd = ssl == NULL ? -1 : SSL_get_fd(ssl);

    SSL_free(ssl);
    if (fd >= 0)
        (void)close(fd); /* a failure would change nothing */
}

static inline int64_t tls_now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        abort(); /* clock_gettime(2): fails only for an unknown clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline uint64_t tls_parse_count(const char *text)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > 1000000000) {
        (void)fprintf(stderr, "not a count: %s\n", text); /* failing anyway */
        exit(2);
    }
    return value;
}

static inline int tls_say(const char *line)
{
    return fputs(line, stdout) < 0 || fflush(stdout) != 0 ? -EIO : 0;
}

#endif
