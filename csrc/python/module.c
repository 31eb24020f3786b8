/* module.c: the module fdmux._delivery: its functions, and how it is initialised. */
#define FDMUX_TABLE_SHARED
#include "aio.h"
#include "completion.h"
#include "datagram_object.h"
#include "frames.h"
#include "probe.h"
#include "tls_session.h"

struct delivery_names delivery_names;

#if defined(FDMUX_FREE_THREADING)
PyMutex delivery_lists;
#endif

static int make_names(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&delivery_names.event, "_event"},
        {&delivery_names.callback_failed, "_callback_failed"},
        {&delivery_names.keep_error, "_keep_error"},
        {&delivery_names.get_buffer, "get_buffer"},
        {&delivery_names.buffer_updated, "buffer_updated"},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        *names[i].name = PyUnicode_InternFromString(names[i].text);
        if (*names[i].name == NULL)
            return -1;
    }
    return 0;
}

static PyMethodDef methods[] = {
    {"accept", aio_accept, METH_O,
     "accept($module, fd, /)\n--\n\n"
     "Accept a connection for asyncio: (fd, family, peername, sockname), or None."},
    {"asyncio_types", aio_setup, METH_VARARGS,
     "asyncio_types($module, handle, timer_handle, deque, context, copy_context, "
     "report_error, run_timed, write_to_self, /)\n--\n\n"
     "Make the handles of asyncio and the base class of its loop, once."},
    {"asyncio_transport", aio_transport_setup, METH_O,
     "asyncio_transport($module, flow_control, /)\n--\n\n"
     "Make the base class of asyncio's transports, once."},
    {"forget_port", completion_forget_port, METH_NOARGS,
     "forget_port($module, /)\n--\n\n"
     "Look for the loop of the next Completion; for the child of a fork."},
    {"delimited", frames_delimited, METH_VARARGS,
     "delimited($module, delimiter, frame_max, /)\n--\n\n"
     "Make a framer for frames that end with ``delimiter``."},
    {"length_prefixed", frames_length_prefixed, METH_VARARGS,
     "length_prefixed($module, size, is_little, frame_max, /)\n--\n\n"
     "Make a framer. With size 0 each frame has frame_max bytes."},
    {"make_capsule", capsule_make, METH_VARARGS,
     "make_capsule($module, pointer, name, destructor, owner, /)\n--\n\n"
     "Wrap a C pointer; with a destructor of 0 the capsule keeps ``owner`` alive."},
    {"raise_error", delivery_raise_error, METH_O,
     "raise_error($module, loop_address, /)\n--\n\n"
     "Raise the exception that has ended a batch of this loop, if there is one."},
    {"tls_load", tls_library_load, METH_VARARGS,
     "tls_load($module, path, version_number, version_text, head_size, /)\n--\n\n"
     "Find the functions of the OpenSSL that the module _ssl at ``path`` uses."},
    {NULL, NULL, 0, NULL},
};

/* Multi-phase initialisation: when the interpreter starts again in the same process, it
 * makes new types. Subinterpreters get types too, but their Delivery cannot be made. */
static int execute(PyObject *module)
{
    bool is_main = delivery_is_main_interpreter();

    if (is_main)
        aio_forget();
    if (is_main && make_names() < 0)
        return -1;
    if (probe_register(module, is_main) < 0 || delivery_register(module, is_main) < 0 ||
        stream_type_register(module) < 0 ||
        completion_port_register(module, is_main) < 0 ||
        completion_register(module) < 0 || endpoint_type_register(module, is_main) < 0)
        return -1;
    return tls_session_register(module, is_main);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if defined(FDMUX_FREE_THREADING)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fdmux._delivery",
    .m_doc = "Calls Python for the events of streams and endpoints, and sends.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__delivery(void);

PyMODINIT_FUNC PyInit__delivery(void)
{
    return PyModuleDef_Init(&definition);
}
