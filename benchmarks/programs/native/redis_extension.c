/* GETs of Redis as an extension; see gets_extension.h.
 *
 *     give_to(function)      function(values) gets those of a batch, a list of bytes
 *
 * Without it the replies are verified in C only. */
#include <Python.h>
/* Python.h comes first. */
#include <fdmux_python.h>

#include "redis_gets.h"

#include <fdmux/adapters/hiredis.h>
#include <hiredis/async.h>

#include "gets_extension.h"

PyMODINIT_FUNC PyInit_fdmux_benchmarks_gets(void);

static PyObject *values; /* of this batch, or NULL */
static PyObject *values_function;

static void append(const redisReply *reply)
{
    PyObject *value;

    if (values == NULL) {
        if (fdmux_hold_gil(loop) < 0)
            abort(); /* this is a function of the loop */
        values = PyList_New(0);
        end_batch_soon();
    }
    value = PyBytes_FromStringAndSize(reply->str, (Py_ssize_t)reply->len);
    if (values == NULL || value == NULL || PyList_Append(values, value) < 0)
        abort();
    Py_DECREF(value);
}

static void deliver(void)
{
    PyObject *batch = values;

    values = NULL;
    if (batch != NULL)
        call_python(values_function, batch);
    Py_XDECREF(batch);
}

static int attach(void)
{
    return fdmux_hiredis_attach(loop, redis_gets.context);
}

static PyObject *give_to(PyObject *module, PyObject *function)
{
    (void)module;
    values_function = Py_NewRef(function);
    redis_gets.value = append;
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    GETS_METHODS,
    {"give_to", give_to, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fdmux_benchmarks_gets",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_fdmux_benchmarks_gets(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
