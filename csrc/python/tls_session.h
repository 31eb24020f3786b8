/* tls_session.h: TLS of one stream, the type fdmux._delivery.TlsSession.
 *
 * It has Python's ssl.SSLObject and its two MemoryBIOs, and gives the core functions to
 * move bytes through them: those of OpenSSL on the SSL inside, or, where that cannot be
 * reached, ours (tls_methods.c), which call the methods of the Python objects. */
#ifndef FDMUX_PYTHON_TLS_SESSION_H
#define FDMUX_PYTHON_TLS_SESSION_H

#include "tls_library.h"

struct tls_session {
    PyObject head;
    PyObject *object; /* the ssl.SSLObject */
    PyObject *raw; /* its _sslobj, or the object itself if it has none */
    PyObject *incoming; /* MemoryBIO: ciphertext of the peer */
    PyObject *outgoing;
    PyObject *error; /* the first exception, or NULL */
    PyObject *read_ahead; /* bytes: plaintext that shutdown had to read, or NULL */
    /* For the core. */
    const struct fdmux_tls_functions *functions;
    void *ssl;
    struct tls_bio *bio; /* of the core, where tls_methods.c is used; or NULL */
    struct delivery *delivery; /* of its stream, borrowed; NULL: it has none (left) */
    int outcome; /* what SSL_get_error would say; of tls_methods.c */
    bool is_done; /* the handshake */
    bool is_stepped; /* OpenSSL makes its steps, not a method of `object` */
    struct tls_session *previous; /* of those that call OpenSSL directly */
    struct tls_session *next;
};

extern PyTypeObject *tls_session_type;

int tls_session_register(PyObject *module, bool is_main);

/* SSL_get_error; when it reports an error, keeps Python's exception for it. */
int tls_session_get_error(const void *ssl, int result);

/* Keep the exception that is set, unless it only says that bytes are missing. One that
 * is not for the stream, such as KeyboardInterrupt, is for the caller of dispatch.
 * Returns the number of SSL_get_error(3) for it. */
int tls_session_note(struct tls_session *session);

/* Call the handlers of signals that have arrived. The methods of _ssl would do so after
 * their work, the result of which is lost if a handler raises. */
void tls_session_run_signal_handlers(const struct tls_session *session);

/* tls_methods.c */
extern const struct fdmux_tls_functions tls_methods;

/* Receive ciphertext through the BIO of the core, with the GIL. Returns whether there
 * was any: call the method that wanted it again. Does nothing where OpenSSL has that
 * BIO. An exception is kept as the error of the session. */
bool tls_session_pull(struct tls_session *session);

/* Send what a method has encrypted. Returns 0, or -1 if it is lost: there is no memory.
 * An exception that is set stays set. */
int tls_session_push(struct tls_session *session);

/* tls_stream.c: the method of a stream. */
PyObject *stream_start_tls(PyObject *self, PyObject *args);

#endif
