/* tls_stream.c: TLS on a stream of Python: its start, and the steps of its handshake.
 *
 * Python's own SSLObject has the rules of the handshake: verification, names, ALPN and
 * errors. Where OpenSSL can be called, it makes the steps without the GIL, and Python's
 * method only says the result: that it is done, or which exception there is. Everything
 * else is the core's, through the functions of the session. */
#include "stream_object.h"
#include "tls_session.h"

#include <errno.h>

/* ---- the handshake ------------------------------------------------------------- */

static int result_of_error(struct tls_session *session)
{
    int number = tls_session_note(session);

    return number == 1 ? -EPROTO : number == 6 ? -ECONNABORTED : 0;
}

/* Returns as the handshake function of the core; -EINTR if an exception is set that is
 * not for the stream. */
static int call_handshake(struct tls_session *session)
{
    PyObject *done;
    int r;

    do {
        done = PyObject_CallMethod(session->is_stepped ? session->raw : session->object,
                                   "do_handshake", NULL);
        r = tls_session_push(session) < 0 ? -EPROTO : 0;
        if (done == NULL && !PyErr_ExceptionMatches(PyExc_Exception))
            return -EINTR;
        if (done == NULL)
            r = result_of_error(session);
        session->is_done = done != NULL;
        Py_XDECREF(done);
    } while (r == 0 && !session->is_done && tls_session_pull(session));
    if (r == 0 && session->error != NULL)
        return -EPROTO; /* no memory for the ciphertext */
    return r == 0 && session->is_done ? 1 : r;
}

/* A signal handler may raise in the method before or after OpenSSL has done its step.
 * So the method is called once more: then the handshake goes on. */
static int step(struct stream_object *stream, struct tls_session *session)
{
    int r = call_handshake(session);

    if (r != -EINTR)
        return r;
    delivery_keep_and_end_batch(stream->delivery); /* its own result does not */
    r = call_handshake(session);
    if (r == -EINTR)
        PyErr_Clear(); /* one exception is on its way already */
    return r == -EINTR ? -ECANCELED : r;
}

static int call_python(struct fdmux_loop *loop, struct stream_object *stream)
{
    struct delivery *delivery;
    PyObject *session;
    int r = fdmux_hold_gil(loop);

    if (r < 0)
        return r;
    session = delivery_new_ref(stream->tls);
    delivery = stream->delivery;
    Py_INCREF((PyObject *)stream); /* as in delivery_on_event */
    Py_INCREF((PyObject *)delivery);
    delivery_begin_call(delivery, loop);
    r = step(stream, (struct tls_session *)session);
    delivery_end_call(delivery);
    Py_DECREF(session);
    Py_DECREF((PyObject *)delivery);
    Py_DECREF((PyObject *)stream);
    return r;
}

enum {
    ERROR_WANT_READ = 2, /* SSL_get_error(3) */
    ERROR_WANT_WRITE = 3,
};

/* Whether OpenSSL has made a step and wants more bytes. If the handshake is done, or
 * has failed, its function changes nothing when it is called again: a failed one
 * returns before it clears the errors (state_machine() in ssl/statem/statem.c). So the
 * method of Python, which calls it, returns or makes the exception. */
static bool is_step_enough(const struct tls_session *session)
{
    int r, number;

    tls_library.functions.clear_error();
    r = tls_library.functions.do_handshake(session->ssl);
    if (r == 1)
        return false;
    number = tls_library.get_error(session->ssl, r);
    return number == ERROR_WANT_READ || number == ERROR_WANT_WRITE;
}

static int on_handshake(struct fdmux_loop *loop, uint64_t token, void *userdata)
{
    struct stream_object *stream = userdata;
    const struct tls_session *session = (struct tls_session *)stream->tls;

    (void)token;
    if (session->is_stepped && is_step_enough(session))
        return 0;
    return call_python(loop, stream);
}

/* ---- the start ----------------------------------------------------------------- */

static int start(struct stream_object *stream, struct tls_session *session,
                 struct fdmux_tls_options *options)
{
    int r = -ESTALE;

    if (stream->tls != NULL)
        return -EALREADY;
    stream_flush(stream); /* written before TLS: sent as it is */
    options->struct_size = sizeof *options;
    options->functions = session->functions;
    options->ssl = session->ssl;
    options->handshake = on_handshake;
    options->userdata = stream;
    if (stream_is_live(stream))
        r = fdmux_stream_start_tls(stream->delivery->loop, stream->token, options);
    if (r == 0) {
        stream->tls = delivery_new_ref((PyObject *)session);
        session->delivery = stream->delivery;
        stream->is_large = false; /* there is no plaintext to ask the kernel for */
        stream_choose_buffer(stream);
    }
    return r;
}

/* _start_tls(session, received, handshake_timeout_ms, shutdown_timeout_ms,
 * eof_ends=False): returns 0 or -errno; -ESTALE if the stream has ended. */
PyObject *stream_start_tls(PyObject *self, PyObject *args)
{
    struct stream_object *stream = (struct stream_object *)self;
    struct fdmux_tls_options options = {0};
    unsigned int handshake_ms, shutdown_ms;
    int eof_ends = 0;
    PyObject *session;
    Py_buffer received;
    int r;

    if (!PyArg_ParseTuple(args, "O!y*II|p:_start_tls", tls_session_type, &session,
                          &received, &handshake_ms, &shutdown_ms, &eof_ends))
        return NULL;
    options.received = received.buf;
    options.received_length = (size_t)received.len;
    options.handshake_timeout_ms = handshake_ms;
    options.shutdown_timeout_ms = shutdown_ms;
    options.flags = FDMUX_TLS_NO_GATHER; /* write.c gathers */
    if (eof_ends)
        options.flags |= FDMUX_TLS_EOF_ENDS;
    r = stream_check_thread(stream, "start TLS on");
    if (r == 0)
        r = start(stream, (struct tls_session *)session, &options);
    PyBuffer_Release(&received);
    return PyErr_Occurred() != NULL ? NULL : PyLong_FromLong(r);
}
