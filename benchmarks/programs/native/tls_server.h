/* The context of the C servers over TLS, so that all have the same. */
#ifndef FDMUX_BENCHMARKS_TLS_SERVER_H
#define FDMUX_BENCHMARKS_TLS_SERVER_H

#include <openssl/ssl.h>

/* RELEASE_BUFFERS, as Python's ssl module has it. Returns NULL on failure. */
static inline SSL_CTX *tls_server_context(const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL ||
        SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return NULL;
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        return NULL;
    SSL_CTX_set_read_ahead(context, 1);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    return context;
}

#endif
