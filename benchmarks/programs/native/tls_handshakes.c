/* Handshakes against an echo server over TLS, one connection after the other.
 *
 *     tls_handshakes PORT COUNT full|resumed
 *
 * Each connection makes a handshake, has one byte echoed, and closes; with `resumed` it
 * uses the ticket of the first, and fails if the server does not take it. Prints
 * `ready`, waits for a line, runs, prints `done COUNT NANOSECONDS`, and waits for the
 * end of standard input, as load.c does. */
#include "tls_client.h"

#include <stdbool.h>

/* One byte and its echo: the server has then finished its handshake, and its tickets,
 * which TLS 1.3 sends after it, have arrived before the echo. */
static bool exchange(SSL *ssl)
{
    char byte = 'f';

    return SSL_write(ssl, &byte, 1) == 1 && SSL_read(ssl, &byte, 1) == 1 && byte == 'f';
}

static int connect_once(SSL_CTX *context, in_port_t port, SSL_SESSION *session,
                        SSL_SESSION **ret_session)
{
    SSL *ssl = tls_client_open(context, port, session);
    bool is_good = ssl != NULL && exchange(ssl) &&
                   SSL_session_reused(ssl) == (session == NULL ? 0 : 1);

    if (is_good && ret_session != NULL)
        *ret_session = SSL_get1_session(ssl);
    if (ssl != NULL)
        (void)SSL_shutdown(ssl); /* the server closes upon it */
    tls_client_close(ssl);
    return is_good ? 0 : -EPROTO;
}

static int run(SSL_CTX *context, in_port_t port, uint64_t count, SSL_SESSION *session)
{
    char line[80];
    int64_t start;
    int r = tls_say("ready\n");

    if (r < 0 || fgets(line, sizeof line, stdin) == NULL)
        return r < 0 ? r : -EPIPE; /* the runner has ended */
    start = tls_now_ns();
    for (uint64_t i = 0; i < count && r == 0; i++)
        r = connect_once(context, port, session, NULL);
    if (r < 0)
        return r;
    (void)snprintf(line, sizeof line, "done %llu %lld\n", (unsigned long long)count,
                   (long long)(tls_now_ns() - start)); /* two numbers always fit */
    r = tls_say(line);
    if (r == 0)
        (void)fgets(line, sizeof line, stdin); /* returns when the runner is done */
    return r;
}

int main(int argc, char **argv)
{
    SSL_CTX *context = tls_client_context();
    SSL_SESSION *first = NULL;
    bool is_resumed;
    in_port_t port;
    int r;

    if (argc != 4 || context == NULL) {
        (void)fputs("usage: tls_handshakes PORT COUNT full|resumed\n",
                    stderr); /* failing anyway */
        return 2;
    }
    is_resumed = strcmp(argv[3], "resumed") == 0;
    port = (in_port_t)tls_parse_count(argv[1]);
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
    (void)alarm(120); /* SIGALRM ends the process in any case; no older alarm */
    r = connect_once(context, port, NULL, &first);
    if (r == 0)
        r = run(context, port, tls_parse_count(argv[2]), is_resumed ? first : NULL);
    if (r < 0)
        (void)fprintf(stderr, "tls_handshakes: %s\n", strerror(-r)); /* failing */
    SSL_SESSION_free(first);
    SSL_CTX_free(context);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
