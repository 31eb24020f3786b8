/* native_framer.c: the module native_framer: valid and faulty native framers.
 *
 * make(kind) returns a capsule. calls() returns how often framers were called since the
 * last time, and how often `seen` was not the length shown at the previous call. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_frame.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static long call_count;
static long wrong_count;
static size_t shown; /* at the last call, if it returned 0; for one stream at a time */

static void note(size_t length, size_t seen, bool is_whole)
{
    call_count++;
    if (seen != shown)
        wrong_count++;
    shown = is_whole ? 0 : length;
}

/* Four bytes of length, most significant first. Reports how many bytes it waits for. */
static int cut_sized(const unsigned char *data, size_t length, size_t seen,
                     struct fdmux_frame *ret_frame, void *userdata)
{
    size_t size = 4;

    (void)userdata;
    if (length >= 4)
        size += (size_t)data[0] << 24 | (size_t)data[1] << 16 | (size_t)data[2] << 8 |
                data[3];
    note(length, seen, length >= 4 && length >= size);
    ret_frame->size = size;
    ret_frame->part_count = 1;
    ret_frame->parts[0].first = 4;
    ret_frame->parts[0].length = size - 4;
    return length >= 4 && length >= size;
}

/* Lines of words, each after a space; "!" is an invalid frame, "?" one that is too
 * long. */
static int cut_words(const unsigned char *data, size_t length, size_t seen,
                     struct fdmux_frame *ret_frame, void *userdata)
{
    const unsigned char *end = memchr(data, '\n', length);

    (void)userdata;
    note(length, seen, end != NULL);
    if (data[0] == '!' || data[0] == '?')
        return data[0] == '!' ? -EPROTO : -EMSGSIZE;
    if (end == NULL)
        return 0;
    ret_frame->size = (size_t)(end - data) + 1;
    ret_frame->is_list = 1;
    for (size_t i = 0; data + i < end; i++) {
        if (data[i] == ' ')
            ret_frame->parts[ret_frame->part_count++] =
                (struct fdmux_frame_part){i + 1, 0};
        else
            ret_frame->parts[ret_frame->part_count - 1].length++;
    }
    return 1;
}

/* Cuts all bytes into frames, with the fault that `userdata` names. */
static int cut_wrong(const unsigned char *data, size_t length, size_t seen,
                     struct fdmux_frame *ret_frame, void *userdata)
{
    const char *kind = userdata;

    (void)data, (void)seen;
    ret_frame->size = length;
    ret_frame->part_count = 1;
    ret_frame->parts[0] = (struct fdmux_frame_part){0, length};
    if (strcmp(kind, "no size") == 0)
        ret_frame->size = 0;
    if (strcmp(kind, "size beyond") == 0)
        ret_frame->size = length + 1;
    if (strcmp(kind, "no part") == 0)
        ret_frame->part_count = 0;
    if (strcmp(kind, "two parts") == 0)
        ret_frame->part_count = 2;
    if (strcmp(kind, "too many parts") == 0) {
        ret_frame->part_count = FDMUX_FRAME_PARTS_MAX + 1;
        ret_frame->is_list = 1;
    }
    if (strcmp(kind, "first outside") == 0)
        ret_frame->parts[0].first = length + 1;
    if (strcmp(kind, "length outside") == 0)
        ret_frame->parts[0] = (struct fdmux_frame_part){1, SIZE_MAX};
    if (strcmp(kind, "part of the next") == 0)
        ret_frame->size = length - 1;
    if (strcmp(kind, "list outside") == 0) {
        ret_frame->is_list = 1;
        ret_frame->parts[0].first = 1;
    }
    return 1;
}

static char kinds[][24] = {"no size",        "size beyond",      "no part",
                           "two parts",      "too many parts",   "first outside",
                           "length outside", "part of the next", "list outside"};

static struct fdmux_framer sized = {sizeof sized, cut_sized, NULL};
static struct fdmux_framer words = {sizeof words, cut_words, NULL};
static struct fdmux_framer newer = {sizeof newer + 8, cut_words, NULL};
static struct fdmux_framer empty = {sizeof empty, NULL, NULL};
static struct fdmux_framer wrong[sizeof kinds / sizeof kinds[0]];

static struct fdmux_framer *find(const char *kind)
{
    if (strcmp(kind, "sized") == 0)
        return &sized;
    if (strcmp(kind, "words") == 0)
        return &words;
    if (strcmp(kind, "newer") == 0)
        return &newer;
    if (strcmp(kind, "empty") == 0)
        return &empty;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            wrong[i] = (struct fdmux_framer){sizeof wrong[i], cut_wrong, kinds[i]};
            return &wrong[i];
        }
    }
    return NULL;
}

static PyObject *make(PyObject *module, PyObject *args)
{
    const char *kind;
    struct fdmux_framer *framer;

    (void)module;
    if (!PyArg_ParseTuple(args, "s", &kind))
        return NULL;
    framer = find(kind);
    if (framer == NULL)
        return PyErr_Format(PyExc_KeyError, "%s", kind);
    return PyCapsule_New(framer, "fdmux.framer", NULL);
}

static PyObject *calls(PyObject *module, PyObject *unused)
{
    PyObject *pair = Py_BuildValue("(ll)", call_count, wrong_count);

    (void)module, (void)unused;
    call_count = wrong_count = 0;
    shown = 0;
    return pair;
}

static PyMethodDef methods[] = {
    {"make", make, METH_VARARGS, NULL},
    {"calls", calls, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "native_framer",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_native_framer(void);

PyMODINIT_FUNC PyInit_native_framer(void)
{
    return PyModule_Create(&definition);
}
