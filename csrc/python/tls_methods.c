/* tls_methods.c: what the core calls where the SSL inside Python's object cannot be
 * reached: the methods of SSLObject and MemoryBIO, in place of OpenSSL's functions.
 *
 * The `ssl` of the core is the session. The core's BIO is called as OpenSSL calls it:
 * for bytes, when a method wants some; with bytes, after each method. The core calls
 * these with or without the GIL.
 *
 * Signal handlers may run, and raise, in methods that are written in Python: bytes that
 * were decrypted just before would be lost. So the methods are those of the C object
 * inside of the SSLObject. These run handlers too (Modules/_ssl.c calls
 * PyErr_CheckSignals() after OpenSSL), so handlers that are due run before a read, and
 * the bytes of a write that was interrupted are sent. */
#include "tls_session.h"

#include <stdlib.h>
#include <string.h>

/* A BIO, and its method: the core makes one of each for a stream. */
struct tls_bio {
    int (*read)(void *bio, char *buffer, int size);
    int (*write)(void *bio, const char *data, int length);
};

enum {
    CIPHERTEXT_SIZE = 17 * 1024, /* a record and more, as OpenSSL receives */
    ERROR_NONE = 0,
    ERROR_WANT_READ = 2, /* SSL_get_error(3) */
    ERROR_ZERO_RETURN = 6,
};

/* An exception that was set before stays set. */
struct python {
    PyGILState_STATE state;
    PyObject *type, *value, *traceback;
};

static struct python enter(void)
{
    struct python python = {.state = PyGILState_Ensure()};

    PyErr_Fetch(&python.type, &python.value, &python.traceback);
    return python;
}

static void leave(const struct python *python)
{
    PyErr_Restore(python->type, python->value, python->traceback);
    PyGILState_Release(python->state);
}

/* ---- the BIO of the core ------------------------------------------------------- */

static void *bio_meth_new(int type, const char *name)
{
    (void)type, (void)name;
    return calloc(1, sizeof(struct tls_bio));
}

static int bio_meth_set_read(void *method, int (*read)(void *, char *, int))
{
    ((struct tls_bio *)method)->read = read;
    return 1;
}

static int bio_meth_set_write(void *method, int (*write)(void *, const char *, int))
{
    ((struct tls_bio *)method)->write = write;
    return 1;
}

static int bio_meth_set_ctrl(void *method, long (*ctrl)(void *, int, long, void *))
{
    (void)method, (void)ctrl; /* nothing here asks a BIO to flush */
    return 1;
}

static void *bio_new(const void *method)
{
    return (void *)(uintptr_t)method;
}

static void set_bio(void *ssl, void *read_bio, void *write_bio)
{
    (void)write_bio; /* the same */
    ((struct tls_session *)ssl)->bio = read_bio;
}

/* The result of a read says enough; and bytes are received ahead in any case. */
static void set_number(void *object, int number)
{
    (void)object, (void)number;
}

/* Call `object.method(bytes of the memory)`. Returns a new reference, or NULL. */
static PyObject *call_with_memory(PyObject *object, const char *method,
                                  const void *data, int length)
{
    PyObject *view =
        PyMemoryView_FromMemory((char *)(uintptr_t)data, length, PyBUF_READ);
    PyObject *done =
        view == NULL ? NULL : PyObject_CallMethod(object, method, "O", view);

    Py_XDECREF(view);
    return done;
}

bool tls_session_pull(struct tls_session *session)
{
    char buffer[CIPHERTEXT_SIZE];
    PyObject *done;
    int count;

    if (session->bio == NULL)
        return false;
    count = session->bio->read(session->bio, buffer, (int)sizeof buffer);
    if (count <= 0)
        return false;
    done = call_with_memory(session->incoming, "write", buffer, count);
    if (done == NULL)
        session->outcome = tls_session_note(session);
    Py_XDECREF(done);
    return done != NULL;
}

static int push(struct tls_session *session)
{
    PyObject *bytes = PyObject_CallMethod(session->outgoing, "read", NULL);
    Py_ssize_t length = bytes == NULL ? 0 : PyBytes_Size(bytes);

    if (length > 0) /* the core takes them all */
        (void)session->bio->write(session->bio, PyBytes_AsString(bytes), (int)length);
    else if (bytes == NULL)
        session->outcome = tls_session_note(session);
    Py_XDECREF(bytes);
    return bytes == NULL ? -1 : 0;
}

int tls_session_push(struct tls_session *session)
{
    PyObject *type, *value, *traceback;
    int r;

    if (session->bio == NULL)
        return 0;
    PyErr_Fetch(&type, &value, &traceback);
    r = push(session);
    PyErr_Restore(type, value, traceback);
    return r;
}

/* ---- reading and writing -------------------------------------------------------- */

/* The count in `done`; or note the exception, and return -1. */
static int take_count(struct tls_session *session, PyObject *done)
{
    long count = done == NULL ? -1 : PyLong_AsLong(done);

    Py_XDECREF(done);
    session->outcome = count < 0 ? tls_session_note(session) : ERROR_NONE;
    if (tls_session_push(session) < 0)
        return -1;
    return (int)count;
}

static bool has_more_bytes(struct tls_session *session)
{
    return session->outcome == ERROR_WANT_READ && tls_session_pull(session);
}

/* Copy up to `size` bytes from the begin of the bytes object in `*kept`, and keep the
 * rest there. Returns how many, or -1 with an exception. */
static int take_bytes(PyObject **kept, void *buffer, int size)
{
    PyObject *bytes = *kept;
    Py_ssize_t length = PyBytes_Size(bytes);
    Py_ssize_t count = length < size ? length : size;
    const char *data = PyBytes_AsString(bytes);
    PyObject *rest = NULL;

    if (count < length) {
        rest = PyBytes_FromStringAndSize(data + count, length - count);
        if (rest == NULL)
            return -1;
    }
    memcpy(buffer, data, (size_t)count);
    *kept = rest;
    Py_DECREF(bytes);
    return (int)count;
}

static int do_handshake(void *ssl)
{
    struct tls_session *session = ssl;
    struct python python = enter();
    PyObject *done;
    int r;

    do {
        done = PyObject_CallMethod(session->raw, "do_handshake", NULL);
        session->outcome = done == NULL ? tls_session_note(session) : ERROR_NONE;
        r = tls_session_push(session) < 0 || done == NULL ? -1 : 1;
        Py_XDECREF(done);
    } while (r < 0 && has_more_bytes(session));
    leave(&python);
    return r;
}

/* The count is 0 after the peer's close_notify. */
static int call_read(struct tls_session *session, void *buffer, int size)
{
    PyObject *view = PyMemoryView_FromMemory(buffer, size, PyBUF_WRITE);
    PyObject *done = NULL;
    int count;

    if (view != NULL)
        done = PyObject_CallMethod(session->raw, "read", "iO", size, view);
    Py_XDECREF(view);
    count = take_count(session, done);
    if (count == 0)
        session->outcome = ERROR_ZERO_RETURN;
    return count;
}

static int read_plain(void *ssl, void *buffer, int size)
{
    struct tls_session *session = ssl;
    struct python python = enter();
    int r;

    tls_session_run_signal_handlers(session);
    if (session->read_ahead == NULL) {
        do
            r = call_read(session, buffer, size);
        while (r < 0 && has_more_bytes(session));
    } else {
        r = take_bytes(&session->read_ahead, buffer, size);
        session->outcome = r < 0 ? tls_session_note(session) : ERROR_NONE;
    }
    leave(&python);
    return r;
}

/* A signal handler has raised in `write`. Has OpenSSL encrypted all bytes before? */
static bool was_interrupted_after(const struct tls_session *session, int length)
{
    PyObject *type, *value, *traceback;
    PyObject *count;
    long pending;

    if (PyErr_Occurred() == NULL || PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Fetch(&type, &value, &traceback);
    count = PyObject_GetAttrString(session->outgoing, "pending");
    pending = count == NULL ? 0 : PyLong_AsLong(count);
    Py_XDECREF(count);
    PyErr_Restore(type, value, traceback);
    return pending > length;
}

static int write_plain(void *ssl, const void *data, int length)
{
    struct tls_session *session = ssl;
    struct python python = enter();
    PyObject *done = call_with_memory(session->raw, "write", data, length);
    bool is_encrypted = was_interrupted_after(session, length);
    int r = take_count(session, done);

    if (is_encrypted)
        r = length;
    leave(&python);
    return r;
}

/* ---- shutdown ------------------------------------------------------------------- */

/* Append what OpenSSL has decrypted already to what `read` returns. */
static int read_ahead(struct tls_session *session)
{
    PyObject *count = PyObject_CallMethod(session->raw, "pending", NULL);
    PyObject *bytes = NULL;

    if (count != NULL && PyObject_IsTrue(count) != 0)
        bytes = PyObject_CallMethod(session->raw, "read", "O", count);
    else if (count != NULL)
        bytes = PyBytes_FromStringAndSize(NULL, 0);
    Py_XDECREF(count);
    if (bytes == NULL)
        return -1;
    if (session->read_ahead != NULL) {
        PyBytes_ConcatAndDel(&session->read_ahead, bytes);
        return session->read_ahead == NULL ? -1 : 0;
    }
    if (PyBytes_Size(bytes) > 0)
        session->read_ahead = bytes;
    else
        Py_DECREF(bytes);
    return 0;
}

/* Call `shutdown` while there is nothing to read: the method calls SSL_shutdown twice,
 * and the second time discards what the peer has sent, or fails because of it. */
static int call_shutdown(struct tls_session *session)
{
    PyObject *bytes = PyObject_CallMethod(session->incoming, "read", NULL);
    PyObject *done, *written;
    int r = 1;

    if (bytes == NULL)
        return -1;
    done = PyObject_CallMethod(session->raw, "shutdown", NULL);
    if (done == NULL) {
        session->outcome = tls_session_note(session);
        r = session->outcome == ERROR_WANT_READ ? 0 : -1;
    }
    written = PyObject_CallMethod(session->incoming, "write", "O", bytes);
    if (written == NULL && r >= 0)
        r = -1;
    Py_XDECREF(done);
    Py_XDECREF(written);
    Py_DECREF(bytes);
    return r;
}

static int shutdown_tls(void *ssl)
{
    struct tls_session *session = ssl;
    struct python python = enter();
    int r;

    tls_session_run_signal_handlers(session);
    r = read_ahead(session);
    if (r == 0)
        r = call_shutdown(session);
    if (PyErr_Occurred() != NULL)
        session->outcome = tls_session_note(session);
    if (tls_session_push(session) < 0)
        r = -1;
    leave(&python);
    return r;
}

/* ---- errors -------------------------------------------------------------------- */

static int get_error(const void *ssl, int result)
{
    (void)result;
    return ((const struct tls_session *)ssl)->outcome;
}

/* Python's methods leave nothing in OpenSSL's queue; the session has the exception. */
static void clear_error(void)
{
}

static unsigned long peek_last_error(void)
{
    return 0;
}

const struct fdmux_tls_functions tls_methods = {
    .struct_size = sizeof(struct fdmux_tls_functions),
    .do_handshake = do_handshake,
    .read = read_plain,
    .write = write_plain,
    .shutdown = shutdown_tls,
    .get_error = get_error,
    .clear_error = clear_error,
    .peek_last_error = peek_last_error,
    .set_bio = set_bio,
    .set_read_ahead = set_number,
    .bio_meth_new = bio_meth_new,
    .bio_meth_free = free,
    .bio_meth_set_read = bio_meth_set_read,
    .bio_meth_set_write = bio_meth_set_write,
    .bio_meth_set_ctrl = bio_meth_set_ctrl,
    .bio_new = bio_new,
    .bio_set_init = set_number,
    .bio_set_flags = set_number,
    .bio_clear_flags = set_number,
};
