/* module.c: the clients as a Python type, for every CPython from 3.11 on.
 *
 *     client = native_clients.Client("redis", "127.0.0.1:6379", fdmux.current())
 *     client.ask("GET key", completion)     completes it with a str, None or an error
 *     client.close()
 *
 * Answers come in functions of the loop. All of a batch take the GIL once. */
#define CLIENTS_IN_PYTHON /* as setup.py says, for all files */
#define FDMUX_TABLE_SHARED
#include "clients.h"

#include <curl/curl.h>

#include <sys/select.h> /* ares.h uses fd_set */

#include <ares.h>

PyMODINIT_FUNC PyInit_native_clients(void);

static const struct client_kind *const kinds[] = {&redis_kind, &http_kind, &dns_kind,
                                                  &postgresql_kind};

struct client_object {
    PyObject ob_base; /* as PyObject_HEAD declares */
    const struct client_kind *kind;
    struct fdmux_loop *loop;
    void *client;    /* NULL: closed */
    PyObject *owner; /* of the loop */
};

struct question {
    struct fdmux_loop *loop;
    PyObject *completion;
};

/* Called by the loop, or inside ask and close. The hold makes the first answer of a
 * batch take the GIL for all; outside of a batch it fails, and PyGILState_Ensure, which
 * costs little where the GIL is held, makes sure of it. */
static void on_answer(void *userdata, const char *text, const char *error)
{
    struct question *question = (struct question *)userdata;
    PyGILState_STATE state;
    PyObject *result = NULL;

    (void)fdmux_hold_gil(question->loop);
    state = PyGILState_Ensure();
    if (error != NULL)
        PyErr_SetString(PyExc_ConnectionError, error);
    else
        result = text == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(text);
    (void)fdmux_complete(question->loop, question->completion, result); /* reports it */
    Py_DECREF(question->completion);
    (void)fdmux_loop_unref(question->loop); /* not the last one before the owner's */
    free(question);
    PyGILState_Release(state);
}

static PyObject *client_ask(PyObject *object, PyObject *args)
{
    struct client_object *self = (struct client_object *)object;
    struct question *question;
    const char *text;
    PyObject *completion;
    int r;

    if (!PyArg_ParseTuple(args, "sO:ask", &text, &completion))
        return NULL;
    if (self->client == NULL) {
        PyErr_SetString(PyExc_ValueError, "ask a client that is closed");
        return NULL;
    }
    question = (struct question *)malloc(sizeof *question);
    if (question == NULL)
        return PyErr_NoMemory();
    question->loop = fdmux_loop_ref(self->loop);
    question->completion = Py_NewRef(completion);
    r = self->kind->ask(self->client, text, (struct asker){on_answer, question});
    if (r == 0)
        return Py_NewRef(Py_None); /* Py_RETURN_NONE of 3.12 is wrong on 3.11 */
    (void)fdmux_loop_unref(question->loop);
    Py_DECREF(completion);
    free(question);
    return fdmux_raise(r, "ask a server");
}

static PyObject *client_close(PyObject *object, PyObject *unused)
{
    struct client_object *self = (struct client_object *)object;
    void *client = self->client;

    (void)unused;
    self->client = NULL;
    if (client != NULL)
        self->kind->close(client);
    return Py_NewRef(Py_None);
}

static int client_init(PyObject *object, PyObject *args, PyObject *names)
{
    static char *keywords[] = {"kind", "address", "loop", NULL};
    struct client_object *self = (struct client_object *)object;
    const struct client_kind *found = NULL;
    const char *kind, *address;
    PyObject *owner;
    int r;

    if (!PyArg_ParseTupleAndKeywords(args, names, "ssO:Client", keywords, &kind,
                                     &address, &owner))
        return -1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i]->name, kind) == 0)
            found = kinds[i];
    }
    if (found == NULL || self->owner != NULL) { /* or it is one already */
        PyErr_Format(PyExc_ValueError, "make a client of the kind %s", kind);
        return -1;
    }
    self->loop = fdmux_from_object(owner);
    if (self->loop == NULL)
        return -1;
    self->kind = found;
    self->owner = Py_NewRef(owner);
    r = self->kind->open(self->loop, address, &self->client);
    if (r < 0)
        (void)fdmux_raise(r, address);
    return r < 0 ? -1 : 0;
}

static void client_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    Py_DECREF(client_close(object, NULL));
    Py_XDECREF(((struct client_object *)object)->owner);
    PyObject_Free(object);
    Py_DECREF(type); /* instances own a reference to a heap type */
}

static PyMethodDef client_methods[] = {
    {"ask", client_ask, METH_VARARGS, "ask(question, completion)"},
    {"close", client_close, METH_NOARGS, "Fail what was asked, and free the client."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot client_slots[] = {
    {Py_tp_new, PyType_GenericNew},       {Py_tp_init, client_init},
    {Py_tp_dealloc, client_dealloc},      {Py_tp_methods, client_methods},
    {Py_tp_doc, "A client of a server."}, {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "native_clients.Client",
    .basicsize = sizeof(struct client_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = client_slots,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "native_clients",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit_native_clients(void)
{
    PyObject *module, *type;

    if (fdmux_import() < 0)
        return NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        PyErr_SetString(PyExc_ImportError, "libcurl or c-ares cannot be used");
        return NULL;
    }
    module = PyModule_Create(&definition);
    type = module == NULL ? NULL : PyType_FromSpec(&client_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "Client", type) < 0)
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}
