/* extension.c: an extension for test_python_header.py, as a stranger would write it.
 *
 * It finds loops with fdmux_python.h, hears of their end, and raises what goes wrong.
 * Limited API; None is returned as a new reference, because Py_RETURN_NONE, compiled
 * with 3.12 or later, takes none, which would free None on 3.11 one day. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static PyObject *new_none(void)
{
    return Py_NewRef(Py_None);
}

/* find(object): the address of its loop. */
static PyObject *find(PyObject *module, PyObject *object)
{
    struct fdmux_loop *loop = fdmux_from_object(object);

    (void)module;
    return loop == NULL ? NULL : PyLong_FromVoidPtr(loop);
}

/* current(): the address of the loop of the loop that runs here. */
static PyObject *current(PyObject *module, PyObject *unused)
{
    struct fdmux_loop *loop = fdmux_current();

    (void)module, (void)unused;
    return loop == NULL ? NULL : PyLong_FromVoidPtr(loop);
}

/* ---- the end of a loop ----------------------------------------------------------- */

/* Call the Python function `userdata` in this or any other thread, with the GIL. */
static void on_close(struct fdmux_loop *loop, void *userdata)
{
    PyObject *result;

    if (fdmux_hold_gil(loop) < 0)
        return;
    result = PyObject_CallFunction((PyObject *)userdata, "i", fdmux_loop_wake(loop));
    if (result == NULL)
        PyErr_WriteUnraisable((PyObject *)userdata);
    Py_XDECREF(result);
    Py_DECREF((PyObject *)userdata);
}

/* at_close(object, fn): call fn(result of a wake) when the loop closes. */
static PyObject *at_close(PyObject *module, PyObject *arguments)
{
    struct fdmux_loop *loop;
    PyObject *object, *fn;
    uint64_t hook;
    int r;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO", &object, &fn))
        return NULL;
    loop = fdmux_from_object(object);
    if (loop == NULL)
        return NULL;
    r = fdmux_loop_at_close(loop, on_close, fn, &hook);
    if (r < 0)
        return fdmux_raise(r, "hear of the end of the loop");
    Py_INCREF(fn);
    return new_none();
}

/* keep(object): a loop with a reference of its own, as an address. */
static PyObject *keep(PyObject *module, PyObject *object)
{
    struct fdmux_loop *loop = fdmux_from_object(object);

    (void)module;
    return loop == NULL ? NULL : PyLong_FromVoidPtr(fdmux_loop_ref(loop));
}

/* let_go(address): wake the loop, give the reference up, and return what wake did. */
static PyObject *let_go(PyObject *module, PyObject *address)
{
    struct fdmux_loop *loop = (struct fdmux_loop *)PyLong_AsVoidPtr(address);
    int r;

    (void)module;
    if (loop == NULL)
        return NULL;
    r = fdmux_loop_wake(loop);
    fdmux_loop_unref(loop);
    return PyLong_FromLong(r);
}

/* ---- errors ---------------------------------------------------------------------- */

/* raise_error(result, what): what fdmux_raise makes of it. */
static PyObject *raise_error(PyObject *module, PyObject *arguments)
{
    const char *attempted;
    int result;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "is", &result, &attempted))
        return NULL;
    return fdmux_raise(result, attempted);
}

/* raise_over(result): an exception is set already. */
static PyObject *raise_over(PyObject *module, PyObject *result)
{
    int r = (int)PyLong_AsLong(result);

    (void)module;
    PyErr_SetString(PyExc_KeyError, "the first");
    return fdmux_raise(r, "try something else");
}

static int ignore(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    (void)loop, (void)io, (void)events, (void)userdata;
    return 0;
}

/* Make one of the mistakes that authors of extensions make. */
static int make_mistake(struct fdmux_loop *loop, const char *mistake)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .fd = -1, .fn = ignore};
    uint64_t io;

    switch (mistake[0]) {
    case 'l':
        return fdmux_io_add(NULL, &options, &io);
    case 'o':
        return fdmux_io_add(loop, NULL, &io);
    case 's':
        options.struct_size = 0;
        break;
    case 'f':
        options.fn = NULL;
        break;
    case 'e':
        options.events = UINT32_C(1) << 30;
        break;
    default:
        return fdmux_io_remove(loop, 12345);
    }
    return fdmux_io_add(loop, &options, &io);
}

/* fail(object, mistake): raise the error of that mistake. */
static PyObject *fail(PyObject *module, PyObject *arguments)
{
    struct fdmux_loop *loop;
    const char *mistake;
    PyObject *object;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Os", &object, &mistake))
        return NULL;
    loop = fdmux_from_object(object);
    return loop == NULL ? NULL : fdmux_raise(make_mistake(loop, mistake), mistake);
}

/* ---- results ----------------------------------------------------------------------
 */

/* What a function of the loop delivers: to `completion`, `value`, or an exception. */
struct delivery {
    PyObject *completion;
    PyObject *value; /* NULL: a LookupError */
};

static int result_count;

static int deliver(struct fdmux_loop *loop, void *userdata)
{
    struct delivery *delivery = userdata;
    int r = loop == NULL ? -ESTALE : fdmux_hold_gil(loop);

    if (r == 0) {
        if (delivery->value == NULL)
            PyErr_SetString(PyExc_LookupError, "no such row");
        r = fdmux_complete(loop, delivery->completion, delivery->value);
        result_count += r == 0 ? 1 : 0;
        Py_DECREF(delivery->completion);
    }
    free(delivery);
    return 0;
}

/* deliver_soon(object, completion, value=None): complete it in a function of the loop;
 * without a value with an exception. */
static PyObject *deliver_soon(PyObject *module, PyObject *arguments)
{
    struct delivery *delivery = calloc(1, sizeof *delivery);
    struct fdmux_loop *loop;
    PyObject *object;
    int r;

    (void)module;
    if (delivery == NULL)
        return PyErr_NoMemory();
    if (!PyArg_ParseTuple(arguments, "OO|O", &object, &delivery->completion,
                          &delivery->value)) {
        free(delivery);
        return NULL;
    }
    Py_INCREF(delivery->completion);
    Py_XINCREF(delivery->value);
    loop = fdmux_from_object(object);
    r = loop == NULL ? -EINVAL : fdmux_post(loop, deliver, delivery);
    return r < 0 ? fdmux_raise(r, "deliver a result") : new_none();
}

/* delivered(): how many results were delivered. */
static PyObject *delivered(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(result_count);
}

static PyMethodDef methods[] = {
    {"find", find, METH_O, NULL},
    {"current", current, METH_NOARGS, NULL},
    {"at_close", at_close, METH_VARARGS, NULL},
    {"keep", keep, METH_O, NULL},
    {"let_go", let_go, METH_O, NULL},
    {"raise_error", raise_error, METH_VARARGS, NULL},
    {"raise_over", raise_over, METH_O, NULL},
    {"fail", fail, METH_VARARGS, NULL},
    {"deliver_soon", deliver_soon, METH_VARARGS, NULL},
    {"delivered", delivered, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "extension", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_extension(void)
{
    if (fdmux_import() < 0)
        return NULL;
    return PyModule_Create(&definition);
}
