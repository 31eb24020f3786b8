/* GETs over HTTP as an extension; see gets_extension.h. */
#include <Python.h>
/* Python.h comes first. */
#include <fdmux_python.h>

#include "http_gets.h"

#include <curl/curl.h>
#include <fdmux/adapters/curl.h>

#include "gets_extension.h"

PyMODINIT_FUNC PyInit_fdmux_benchmarks_gets(void);

static void deliver(void)
{
    /* The answers are verified in C only. */
}

static void on_done(CURL *easy, CURLcode result, void *userdata)
{
    (void)userdata;
    http_gets_done(easy, result);
}

static int attach(void)
{
    static struct fdmux_curl *curl; /* until the program ends */

    return fdmux_curl_attach(loop, http_gets.multi, on_done, NULL, &curl);
}

static PyMethodDef methods[] = {
    GETS_METHODS,
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
