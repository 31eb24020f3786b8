/* counter.c: counts, in C and without the GIL, the bytes that arrive at a descriptor,
 * in any loop that the Python program runs. Links nothing of fdmux. */
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>
#include <unistd.h>

static unsigned long long byte_count; /* one counter is enough for an example */

static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    char buffer[4096];
    ssize_t count = read((int)(intptr_t)userdata, buffer, sizeof buffer);

    (void)events;
    if (count == 0)
        return fdmux_io_remove(loop, io); /* end of file: not called again */
    if (count < 0)
        return errno == EAGAIN ? 0 : -errno; /* raised in Python's loop as an OSError */
    byte_count += (unsigned long long)count;
    return 0;
}

/* watch(loop, fd): `loop` is any loop, or any object that has one. */
static PyObject *watch(PyObject *module, PyObject *args)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options, .events = FDMUX_READ, .fn = on_readable};
    struct fdmux_loop *loop;
    PyObject *object;
    uint64_t io;
    int r;

    (void)module;
    if (!PyArg_ParseTuple(args, "Oi", &object, &options.fd))
        return NULL;
    options.userdata = (void *)(intptr_t)options.fd;
    loop = fdmux_from_object(object);
    if (loop == NULL)
        return NULL;
    r = fdmux_io_add(loop, &options, &io);
    return r < 0 ? fdmux_raise(r, "watch a descriptor") : Py_NewRef(Py_None);
}

static PyObject *count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLongLong(byte_count);
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_VARARGS, "watch(loop, fd): Count what arrives at fd."},
    {"count", count, METH_NOARGS, "count() -> int: How many bytes have arrived."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef counter = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "counter", .m_methods = methods};

PyMODINIT_FUNC PyInit_counter(void)
{
    return fdmux_import() < 0 ? NULL : PyModule_Create(&counter);
}
