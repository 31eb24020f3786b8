/* tls_session.c: the type fdmux._delivery.TlsSession, and the SSL inside of Python's
 * object.
 *
 * CPython's _ssl._SSLSocket begins, after the object's head, with its socket (NULL, as
 * it has BIOs), the SSL, and the SSLContext; _ssl.MemoryBIO with its BIO. The Python
 * side allows this only on versions of CPython that are known to be so. Each session is
 * checked before anything is followed: the words beside the SSL must be as they are
 * known. Then the SSL must name the two BIOs as its own. */
#include "tls_session.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

PyTypeObject *tls_session_type;

static struct tls_session *first_direct; /* sessions that call OpenSSL directly */

/* ---- exceptions ---------------------------------------------------------------- */

/* An OSError of a callback of the program has an errno, too. */
static bool is_of_ssl(PyObject *error)
{
    PyObject *module = PyImport_ImportModule("_ssl");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "SSLError");
    int is_one = type == NULL ? -1 : PyObject_IsInstance(error, type);

    Py_XDECREF(module);
    Py_XDECREF(type);
    if (is_one < 0)
        PyErr_Clear();
    return is_one > 0;
}

/* The number of SSL_get_error(3), which an ssl.SSLError has as its errno; else 1. */
static int number_of(PyObject *error)
{
    PyObject *number = is_of_ssl(error) ? PyObject_GetAttrString(error, "errno") : NULL;
    long value = 1;

    if (number != NULL && PyLong_Check(number))
        value = PyLong_AsLong(number);
    Py_XDECREF(number);
    if (PyErr_Occurred() != NULL) /* no errno, or a huge one */
        PyErr_Clear();
    return value == 2 || value == 3 || value == 6 ? (int)value : 1;
}

/* The exception that is set is for the caller of dispatch. */
static void raise_from_dispatch(const struct tls_session *session)
{
    if (session->delivery != NULL && session->delivery->loop != NULL)
        delivery_keep_and_end_batch(session->delivery);
    else
        PyErr_WriteUnraisable((PyObject *)session);
}

void tls_session_run_signal_handlers(const struct tls_session *session)
{
    if (PyErr_CheckSignals() < 0)
        raise_from_dispatch(session);
}

int tls_session_note(struct tls_session *session)
{
    PyObject *type, *value, *traceback;
    int number;

    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        raise_from_dispatch(session);
        return 1;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    number = number_of(value);
    if (number == 1 && session->error == NULL) {
        if (traceback != NULL)
            (void)PyException_SetTraceback(value, traceback); /* it is a traceback */
        session->error = delivery_new_ref(value);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return number;
}

static struct tls_session *find_direct(const void *ssl)
{
    struct tls_session *session;

    delivery_lists_lock();
    session = first_direct;
    while (session != NULL && session->ssl != ssl)
        session = session->next;
    delivery_lists_unlock();
    return session;
}

/* Have Python make the exception: its read() fails again, as OpenSSL refuses to go on,
 * and makes the exception of the error that is still in the queue of this thread. The
 * call reads nothing. O(sessions), once for a connection that fails. */
static void keep_exception(const void *ssl)
{
    PyGILState_STATE state = PyGILState_Ensure();
    struct tls_session *session = find_direct(ssl);
    PyObject *type, *value, *traceback;
    PyObject *done = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    if (session != NULL && session->error == NULL) {
        tls_session_run_signal_handlers(session);
        done = PyObject_CallMethod(session->raw, "read", "i", 1);
        if (done == NULL)
            (void)tls_session_note(session);
        Py_XDECREF(done);
    }
    PyErr_Restore(type, value, traceback);
    PyGILState_Release(state);
}

int tls_session_get_error(const void *ssl, int result)
{
    int number = tls_library.get_error(ssl, result);

    if (number == 1 || number == 5) /* SSL_ERROR_SSL, SSL_ERROR_SYSCALL */
        keep_exception(ssl);
    return number;
}

/* ---- the SSL inside of Python's object ------------------------------------------ */

static void *word_of(PyObject *object, size_t index)
{
    void *word;

    memcpy((void *)&word,
           (const char *)object + tls_library.head_size + index * sizeof word,
           sizeof word);
    return word;
}

static void link_direct(struct tls_session *session)
{
    delivery_lists_lock();
    session->next = first_direct;
    if (first_direct != NULL)
        first_direct->previous = session;
    first_direct = session;
    delivery_lists_unlock();
}

static void unlink_direct(struct tls_session *session)
{
    delivery_lists_lock();
    if (session->previous != NULL)
        session->previous->next = session->next;
    else if (first_direct == session)
        first_direct = session->next;
    if (session->next != NULL)
        session->next->previous = session->previous;
    session->previous = session->next = NULL;
    delivery_lists_unlock();
}

/* Are the words beside the SSL those of an _SSLSocket? */
static bool is_known_layout(const struct tls_session *session)
{
    PyObject *context = PyObject_GetAttrString(session->raw, "context");
    bool is_known = context != NULL && word_of(session->raw, 0) == NULL &&
                    word_of(session->raw, 2) == context;

    Py_XDECREF(context);
    PyErr_Clear(); /* no such attribute */
    return is_known;
}

/* Returns 0, or -1 with an exception: the objects are not what they are taken for. */
static int use_library(struct tls_session *session)
{
    void *ssl = word_of(session->raw, 1);
    void *read_bio = word_of(session->incoming, 0);
    void *write_bio = word_of(session->outgoing, 0);

    if (!is_known_layout(session) || ssl == NULL || read_bio == NULL ||
        write_bio == NULL || tls_library.get_rbio(ssl) != read_bio ||
        tls_library.get_wbio(ssl) != write_bio) {
        PyErr_SetString(PyExc_ImportError,
                        "the objects of _ssl have another layout than is known");
        return -1;
    }
    session->functions = &tls_library.functions;
    session->ssl = ssl;
    link_direct(session);
    return 0;
}

static void use_methods(struct tls_session *session)
{
    session->functions = &tls_methods;
    session->ssl = session;
}

/* _facts(): what OpenSSL says of the session: (is a server, plaintext pending, bytes in
 * the incoming BIO, in the outgoing BIO, version of the protocol). */
static PyObject *facts(PyObject *self, PyObject *unused)
{
    const struct tls_session *session = (struct tls_session *)self;

    (void)unused;
    if (session->functions != &tls_library.functions)
        return PyErr_Format(PyExc_RuntimeError, "ask OpenSSL: %R calls Python", self);
    return Py_BuildValue(
        "(iinns)", tls_library.is_server(session->ssl),
        tls_library.pending(session->ssl),
        (Py_ssize_t)tls_library.bio_pending(word_of(session->incoming, 0)),
        (Py_ssize_t)tls_library.bio_pending(word_of(session->outgoing, 0)),
        tls_library.get_version(session->ssl));
}

/* ---- the type ------------------------------------------------------------------ */

/* TlsSession(object, incoming, outgoing, is_direct, must_call_python=False): a class of
 * the program may have another `do_handshake`, or a callback of its own. */
static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *object, *incoming, *outgoing;
    struct tls_session *session;
    int must_call_python = 0;
    int is_direct;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "OOOp|p:TlsSession", &object, &incoming, &outgoing,
                          &is_direct, &must_call_python))
        return NULL;
    if (is_direct && !tls_library.is_loaded)
        return PyErr_Format(PyExc_ImportError, "OpenSSL's functions are not loaded");
    session = (struct tls_session *)allocate(type, 0);
    if (session == NULL)
        return NULL;
    session->object = delivery_new_ref(object);
    session->incoming = delivery_new_ref(incoming);
    session->outgoing = delivery_new_ref(outgoing);
    session->raw = PyObject_GetAttrString(object, "_sslobj");
    if (session->raw == NULL) {
        PyErr_Clear(); /* another implementation of Python */
        session->raw = delivery_new_ref(object);
    }
    session->is_stepped = is_direct && !must_call_python;
    if (!is_direct)
        use_methods(session);
    else if (use_library(session) < 0)
        Py_CLEAR(session);
    return (PyObject *)session;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    const struct tls_session *session = (struct tls_session *)self;
    PyObject *const held[] = {
        (PyObject *)Py_TYPE(self), session->object,   session->raw,
        session->incoming,         session->outgoing, session->error,
        session->read_ahead};

    return delivery_visit(held, sizeof held / sizeof held[0], visit, arg);
}

/* The core may still use the SSL of a stream: only `dealloc` gives up the objects. */
static int clear(PyObject *self)
{
    Py_CLEAR(((struct tls_session *)self)->error);
    return 0;
}

static void dealloc(PyObject *self)
{
    struct tls_session *session = (struct tls_session *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    unlink_direct(session);
    Py_CLEAR(session->error);
    Py_CLEAR(session->read_ahead);
    Py_CLEAR(session->raw);
    Py_CLEAR(session->object);
    Py_CLEAR(session->incoming);
    Py_CLEAR(session->outgoing);
    release(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *get_is_direct(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct tls_session *)self)->functions != &tls_methods);
}

static PyMethodDef methods[] = {
    {"_facts", facts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_object", T_OBJECT, offsetof(struct tls_session, object), READONLY, NULL},
    {"_error", T_OBJECT, offsetof(struct tls_session, error), 0, NULL},
    {"is_done", T_BOOL, offsetof(struct tls_session, is_done), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"_is_direct", get_is_direct, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},          {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_methods, methods},   {Py_tp_members, members},
    {Py_tp_getset, properties}, {0, NULL},
};

static PyType_Spec spec = {
    "fdmux._delivery.TlsSession",
    sizeof(struct tls_session),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};

int tls_session_register(PyObject *module, bool is_main)
{
    PyObject *type = PyType_FromSpec(&spec);

    if (is_main) {
        tls_session_type = (PyTypeObject *)type;
        first_direct = NULL; /* of an interpreter that has ended */
    }
    return type == NULL ? -1 : PyModule_AddObjectRef(module, "TlsSession", type);
}
