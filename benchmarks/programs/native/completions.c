/* An extension that completes what tasks await, in the two ways of fdmux_python.h.
 *
 *     finish_through_queue(completions)    as a native thread does, by the queue
 *     finish_in_function(completions)      in a function of the loop that is mounted
 *
 * Both deliver the number 5. The calls of the queue run in the thread that is measured,
 * although a native thread would make them: so the figure is rather too high. */
#include <Python.h>
/* Python.h comes first. */
#include <fdmux_python.h>

#include <stdint.h>

PyMODINIT_FUNC PyInit_fdmux_benchmarks_completions(void);

static int put(struct fdmux_queue *queue, PyObject *completion)
{
    PyObject *address = PyObject_GetAttrString(completion, "address");
    int64_t *cell = address == NULL ? NULL : (int64_t *)PyLong_AsVoidPtr(address);

    Py_XDECREF(address);
    if (cell == NULL)
        return -EINVAL;
    *cell = 5;
    return fdmux_queue_put(queue, cell);
}

static PyObject *finish_through_queue(PyObject *module, PyObject *completions)
{
    struct fdmux_queue *queue = NULL;
    int r = 0;

    (void)module;
    for (Py_ssize_t i = 0; r == 0 && i < PyList_Size(completions); i++) {
        PyObject *completion = PyList_GetItem(completions, i);

        if (queue == NULL)
            queue = fdmux_queue_from_object(completion);
        r = queue == NULL ? -EINVAL : put(queue, completion);
    }
    return r < 0 ? fdmux_raise(r, "complete through a queue") : Py_NewRef(Py_None);
}

static int finish_all(struct fdmux_loop *loop, void *userdata)
{
    PyObject *completions = userdata;
    int r = loop == NULL ? -ESTALE : fdmux_hold_gil(loop);

    for (Py_ssize_t i = 0; r == 0 && i < PyList_Size(completions); i++)
        r = fdmux_complete(loop, PyList_GetItem(completions, i), PyLong_FromLong(5));
    Py_DECREF(completions);
    return r;
}

static PyObject *finish_in_function(PyObject *module, PyObject *completions)
{
    static struct fdmux_loop *loop; /* a process has one */
    int r;

    (void)module;
    if (loop == NULL)
        loop = fdmux_current();
    if (loop == NULL)
        return NULL;
    r = fdmux_post(loop, finish_all, Py_NewRef(completions));
    return r < 0 ? fdmux_raise(r, "complete in a function") : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"finish_through_queue", finish_through_queue, METH_O, "As a native thread does."},
    {"finish_in_function", finish_in_function, METH_O, "In a function of the loop."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fdmux_benchmarks_completions",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_fdmux_benchmarks_completions(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
