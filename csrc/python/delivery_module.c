/* delivery_module.c: the module fdmux._delivery. */
#define FDMUX_TABLE_SHARED
#include "frames.h"

struct delivery_names delivery_names;

static int make_names(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&delivery_names.event, "event"},
        {&delivery_names.callback_failed, "callback_failed"},
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

static PyObject *size_of(PyObject *module, PyObject *object)
{
    (void)module;
    return PyLong_FromSsize_t(Py_SIZE(object));
}

static PyObject *is_main_interpreter(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(PyInterpreterState_GetID(PyInterpreterState_Get()) == 0);
}

static PyMethodDef methods[] = {
    {"is_main_interpreter", is_main_interpreter, METH_NOARGS,
     "is_main_interpreter($module, /)\n--\n\n"
     "Whether streams can be served here: C finds the main interpreter alone."},
    {"delimited", frames_delimited, METH_VARARGS,
     "delimited($module, delimiter, frame_max, /)\n--\n\nMake a framer."},
    {"length_prefixed", frames_length_prefixed, METH_VARARGS,
     "length_prefixed($module, size, is_little, frame_max, /)\n--\n\n"
     "Make a framer; with size 0 every frame has frame_max bytes."},
    {"raise_error", delivery_raise_error, METH_O,
     "raise_error($module, loop_address, /)\n--\n\n"
     "Raise the exception that has stopped a batch of this loop, if there is one."},
    {"size_of", size_of, METH_O,
     "size_of($module, object, /)\n--\n\n"
     "Return what has_work of delivery.c sees of a deque or a list."},
    {NULL, NULL, 0, NULL},
};

/* Two phases: an interpreter that starts again in the same process makes all anew.
 * Others than the main one get types of their own, which make nothing (see Delivery).
 */
static int execute(PyObject *module)
{
    bool is_main = PyInterpreterState_GetID(PyInterpreterState_Get()) == 0;

    if (is_main && make_names() < 0)
        return -1;
    return delivery_register(module, is_main) < 0 ||
                   delivered_register(module, is_main) < 0
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fdmux._delivery",
    .m_doc = "Streams for Python: from an event of the core to a callback.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__delivery(void);

PyMODINIT_FUNC PyInit__delivery(void)
{
    return PyModuleDef_Init(&definition);
}
