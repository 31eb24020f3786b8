/* embedded.c: see embedded.h. */
#define PY_SSIZE_T_CLEAN
#include "embedded.h"

#include <Python.h>
#include <stdio.h>
#include <string.h>

#define EXPECTED "STREAMS IN A FOREIGN LOOP AND A THREAD"

static PyObject *service;
static PyThreadState *main_state; /* saved while the host waits */

/* Call a method. Returns a new reference, or NULL after a traceback. */
static PyObject *call(const char *method)
{
    PyObject *result = PyObject_CallMethod(service, method, NULL);

    if (result == NULL)
        PyErr_Print();
    return result;
}

static int make_service(void)
{
    PyObject *module = PyImport_ImportModule("service");
    PyObject *number;
    int fd;

    if (module != NULL) {
        service = PyObject_CallMethod(module, "Service", NULL);
        Py_DECREF(module);
    }
    if (service == NULL) {
        PyErr_Print();
        return -1;
    }
    number = call("fileno");
    if (number == NULL)
        return -1;
    fd = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    return fd;
}

int embedded_start(void)
{
    int fd;

    Py_Initialize();
    fd = make_service();
    main_state = PyEval_SaveThread();
    return fd;
}

bool embedded_dispatch(void)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = call("dispatch");
    bool is_over = true; /* also after an exception */

    if (result != NULL) {
        Py_DECREF(result);
        result = call("is_done");
    }
    if (result != NULL) {
        is_over = result == Py_True;
        Py_DECREF(result);
    }
    PyGILState_Release(state);
    return is_over;
}

static bool is_expected(PyObject *result)
{
    const char *text = result == NULL ? NULL : PyUnicode_AsUTF8(result);

    if (text == NULL)
        return false;
    printf("result: %s\n", text);
    return strcmp(text, EXPECTED) == 0;
}

/* Check for the exception of the other coroutine. */
static bool has_failed(void)
{
    PyObject *result = PyObject_CallMethod(service, "failure", NULL);
    bool is_it = result == NULL && PyErr_ExceptionMatches(PyExc_ValueError);

    if (is_it)
        printf("exception: ValueError\n");
    Py_XDECREF(result);
    PyErr_Clear();
    return is_it;
}

int embedded_finish(const char *host)
{
    PyObject *result, *closed;
    bool is_right;

    PyEval_RestoreThread(main_state);
    result = call("result");
    is_right = is_expected(result) && has_failed();
    Py_XDECREF(result);
    closed = call("close");
    is_right = is_right && closed != NULL;
    Py_XDECREF(closed);
    Py_CLEAR(service);
    if (Py_FinalizeEx() < 0)
        is_right = false;
    printf("%s: %s\n", host, is_right ? "ok" : "wrong");
    return is_right ? 0 : 1;
}
