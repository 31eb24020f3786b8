/* module.c: the trials as an extension module, one for each library. The functions need
 * the GIL, and `ended` takes it. */
#define FDMUX_TABLE_SHARED
#include "trial.h"

#define QUOTE(name) #name
#define STRING(name) QUOTE(name)

static struct trial *trial;
static PyObject *callback;
static char *texts[3]; /* what the trial points to */
static struct fdmux_loop *loop;

static void ended(void *userdata)
{
    PyObject *result;

    (void)userdata;
    (void)fdmux_hold_gil(loop); /* -EPERM within ask, which has it */
    result = PyObject_CallFunction(callback, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(result);
}

static void free_texts(void)
{
    for (int i = 0; i < 3; i++) {
        free(texts[i]);
        texts[i] = NULL;
    }
}

static PyObject *none(void)
{
    return Py_BuildValue("");
}

/* begin(loop, scenario, address, silent, control_fd, ended) */
static PyObject *begin(PyObject *module, PyObject *args)
{
    PyObject *object, *function;
    const char *given[3];
    int control_fd;

    (void)module;
    if (!PyArg_ParseTuple(args, "OsssiO", &object, &given[0], &given[1], &given[2],
                          &control_fd, &function))
        return NULL;
    loop = fdmux_from_object(object);
    if (loop == NULL)
        return NULL;
    for (int i = 0; i < 3; i++)
        texts[i] = strdup(given[i]);
    trial = trial_begin(loop, &LIBRARY, texts[0], texts[1], texts[2], control_fd, ended,
                        NULL);
    if (trial == NULL) {
        free_texts();
        return PyErr_NoMemory();
    }
    Py_INCREF(function);
    callback = function;
    return none();
}

/* ask() -> bool: whether to call again, outside of the functions of the loop */
static PyObject *ask(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(trial_ask(trial));
}

/* finish() -> (verified, failed, lost, error), after the loop was closed */
static PyObject *finish(PyObject *module, PyObject *unused)
{
    struct trial_report report = trial_finish(trial);

    (void)module, (void)unused;
    trial = NULL;
    free_texts();
    Py_DECREF(callback);
    return Py_BuildValue("iiis", report.verified_count, report.failed_count,
                         report.lost_count, report.error);
}

static PyObject *version(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyUnicode_FromString(LIBRARY.version());
}

static PyMethodDef methods[] = {
    {"begin", begin, METH_VARARGS, NULL},
    {"ask", ask, METH_NOARGS, NULL},
    {"finish", finish, METH_NOARGS, NULL},
    {"version", version, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = STRING(MODULE), .m_methods = methods};

#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)
PyMODINIT_FUNC INIT(MODULE)(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&definition);
}
