/* frames.c: from bytes to a list of frames, in one call of Python.
 *
 * A framer (fdmux_frame.h) finds the frames. What is not whole is kept with the stream,
 * in memory of its own that goes when the frame is whole. */
#include "frames.h"

#include <errno.h>
#include <string.h>

#define NAME "fdmux.framer"

/* ---- what is not whole ---------------------------------------------------------- */

struct delivery_rest {
    size_t length;
    size_t seen;   /* bytes that the framer was shown at its last call */
    size_t wanted; /* bytes there must be before it is called again */
    unsigned char bytes[];
};

void frames_drop_rest(struct delivered *stream)
{
    PyMem_Free(stream->rest);
    stream->rest = NULL;
}

PyObject *frames_take_rest(PyObject *self, PyObject *unused)
{
    struct delivered *stream = (struct delivered *)self;
    const struct delivery_rest *rest = stream->rest;
    PyObject *bytes =
        PyBytes_FromStringAndSize(rest == NULL ? NULL : (const char *)rest->bytes,
                                  rest == NULL ? 0 : (Py_ssize_t)rest->length);

    (void)unused;
    frames_drop_rest(stream);
    return bytes;
}

/* Append to what is kept. Grows by doubling: a frame that comes byte by byte costs
 * O(length). */
static int keep(struct delivered *stream, const unsigned char *data, size_t length)
{
    size_t before = stream->rest == NULL ? 0 : stream->rest->length;
    size_t capacity = 64;
    struct delivery_rest *rest;

    while (capacity < before + length)
        capacity *= 2;
    rest = PyMem_Realloc(stream->rest, sizeof *rest + capacity);
    if (rest == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stream->rest = rest;
    memcpy(rest->bytes + before, data, length);
    rest->length = before + length;
    return 0;
}

/* ---- cutting -------------------------------------------------------------------- */

/* Where the cutting stands. */
struct cut {
    const struct fdmux_framer *framer;
    struct fdmux_frame *frame; /* 16 KiB: not for the stack */
    const unsigned char *data;
    size_t length;
    size_t seen;
    size_t wanted;
    PyObject *frames;
};

static PyObject *part_of(const struct cut *cut, const struct fdmux_frame_part *part)
{
    size_t size = cut->frame->size;

    if (part->first > size || part->length > size - part->first)
        return PyErr_Format(PyExc_ValueError, "a framer has cut outside of its frame");
    return PyBytes_FromStringAndSize((const char *)cut->data + part->first,
                                     (Py_ssize_t)part->length);
}

static PyObject *list_of(const struct cut *cut, const struct fdmux_frame *frame)
{
    PyObject *list = PyList_New((Py_ssize_t)frame->part_count);

    for (uint32_t i = 0; list != NULL && i < frame->part_count; i++) {
        PyObject *part = part_of(cut, &frame->parts[i]);

        if (part == NULL || PyList_SetItem(list, (Py_ssize_t)i, part) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static int append(struct cut *cut, const struct fdmux_frame *frame)
{
    bool is_sound = frame->size > 0 && frame->size <= cut->length &&
                    frame->part_count <= FDMUX_FRAME_PARTS_MAX &&
                    (frame->is_list || frame->part_count == 1);
    PyObject *object;
    int r;

    if (!is_sound) {
        PyErr_SetString(PyExc_ValueError, "a framer has returned a malformed frame");
        return -1;
    }
    object = frame->is_list ? list_of(cut, frame) : part_of(cut, &frame->parts[0]);
    r = object == NULL ? -1 : PyList_Append(cut->frames, object);
    Py_XDECREF(object);
    cut->data += frame->size;
    cut->length -= frame->size;
    cut->seen = 0;
    return r;
}

/* Returns 0, or -1 with an exception; *ret_error is what the framer says is wrong. */
static int cut_all(struct cut *cut, int *ret_error)
{
    struct fdmux_frame *frame = cut->frame;

    *ret_error = 0;
    while (cut->length > 0) {
        int r;

        frame->size = frame->part_count = frame->is_list = 0;
        r = cut->framer->cut(cut->data, cut->length, cut->seen, frame,
                             cut->framer->userdata);
        if (r == 0)
            cut->wanted = frame->size > cut->length ? frame->size : cut->length + 1;
        if (r < 0)
            *ret_error = r;
        if (r <= 0)
            return 0;
        if (append(cut, frame) < 0)
            return -1;
    }
    return 0;
}

/* What is left becomes the rest: it may lie in the rest already. */
static int keep_left(struct delivered *stream, const struct cut *cut)
{
    struct delivery_rest *rest = stream->rest;

    if (cut->length == 0) {
        frames_drop_rest(stream);
        return 0;
    }
    if (rest != NULL) {
        memmove(rest->bytes, cut->data, cut->length);
        rest->length = cut->length;
    } else if (keep(stream, cut->data, cut->length) < 0) {
        return -1;
    }
    stream->rest->seen = cut->length;
    stream->rest->wanted = cut->wanted;
    return 0;
}

static int cut_into(struct delivered *stream, struct cut *cut,
                    const struct fdmux_stream_event *event, int *ret_error)
{
    cut->data = event->data;
    cut->length = event->length;
    *ret_error = 0;
    if (stream->rest != NULL) {
        cut->seen = stream->rest->seen;
        if (keep(stream, event->data, event->length) < 0)
            return -1;
        cut->data = stream->rest->bytes;
        cut->length = stream->rest->length;
        if (cut->length < stream->rest->wanted)
            return 0;
    }
    return cut_all(cut, ret_error) < 0 ? -1 : keep_left(stream, cut);
}

static PyObject *call(const struct delivered *stream, PyObject *frames)
{
    if (PyList_Size(frames) == 0)
        return delivery_new_ref(Py_None);
    return PyObject_CallFunctionObjArgs(stream->on_data, (PyObject *)stream, frames,
                                        NULL);
}

PyObject *frames_deliver(struct delivered *stream,
                         const struct fdmux_stream_event *event, int *ret_error)
{
    struct cut cut = {
        .framer = PyCapsule_GetPointer(stream->framer, NAME),
        .frame = stream->delivery->frame,
    };
    PyObject *answer = NULL;

    cut.frames = cut.framer == NULL ? NULL : PyList_New(0);
    if (cut.frames != NULL && cut_into(stream, &cut, event, ret_error) == 0)
        answer = call(stream, cut.frames);
    Py_XDECREF(cut.frames);
    return answer;
}

int frames_finish(struct delivered *stream, int error)
{
    PyObject *done = NULL;

    if (error < 0 && stream->is_open) {
        done = PyObject_CallMethod((PyObject *)stream, "frame_failed", "i", -error);
        if (done == NULL)
            return -1;
    }
    Py_XDECREF(done);
    if (!stream->is_open)
        frames_drop_rest(stream);
    return 0;
}

/* ---- framers of ours ------------------------------------------------------------- */

struct delimited {
    struct fdmux_framer framer;
    size_t frame_max;
    size_t size;
    unsigned char delimiter[];
};

static const unsigned char *find(const unsigned char *data, size_t length,
                                 const unsigned char *what, size_t size)
{
    const unsigned char *end = data + length;

    while ((size_t)(end - data) >= size) {
        data = memchr(data, what[0], (size_t)(end - data) - size + 1);
        if (data == NULL || memcmp(data, what, size) == 0)
            return data;
        data++;
    }
    return NULL;
}

static int cut_delimited(const unsigned char *data, size_t length, size_t seen,
                         struct fdmux_frame *ret_frame, void *userdata)
{
    const struct delimited *how = userdata;
    size_t start = seen < how->size ? 0 : seen - how->size + 1; /* it may be in part */
    size_t end = how->frame_max + how->size; /* a delimiter further on is too late */
    const unsigned char *found;

    if (end > length)
        end = length;
    found =
        start > end ? NULL : find(data + start, end - start, how->delimiter, how->size);
    if (found == NULL)
        return length >= how->frame_max + how->size ? -EMSGSIZE : 0;
    ret_frame->parts[0].first = 0;
    ret_frame->parts[0].length = (size_t)(found - data);
    ret_frame->size = ret_frame->parts[0].length + how->size;
    ret_frame->part_count = 1;
    return 1;
}

struct prefixed {
    struct fdmux_framer framer;
    uint64_t frame_max;
    size_t size; /* of the length; 0: frames of frame_max bytes */
    bool is_little;
};

static uint64_t length_at(const struct prefixed *how, const unsigned char *data)
{
    uint64_t length = 0;

    for (size_t i = 0; i < how->size; i++)
        length = length << 8 | data[how->is_little ? how->size - 1 - i : i];
    return length;
}

static int cut_prefixed(const unsigned char *data, size_t length, size_t seen,
                        struct fdmux_frame *ret_frame, void *userdata)
{
    const struct prefixed *how = userdata;
    uint64_t size;

    (void)seen;
    ret_frame->size = how->size;
    if (length < how->size)
        return 0;
    size = how->size == 0 ? how->frame_max : length_at(how, data);
    if (size > how->frame_max)
        return -EMSGSIZE;
    ret_frame->size = how->size + (size_t)size;
    if (length < ret_frame->size)
        return 0;
    ret_frame->parts[0].first = how->size;
    ret_frame->parts[0].length = (size_t)size;
    ret_frame->part_count = 1;
    return 1;
}

static void free_framer(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, NAME));
}

static PyObject *capsule_of(struct fdmux_framer *framer, fdmux_frame_cut_fn cut)
{
    PyObject *capsule;

    framer->struct_size = sizeof *framer;
    framer->cut = cut;
    framer->userdata = framer;
    capsule = PyCapsule_New(framer, NAME, free_framer);
    if (capsule == NULL)
        PyMem_Free(framer);
    return capsule;
}

/* delimited(delimiter, frame_max) -> capsule */
PyObject *frames_delimited(PyObject *module, PyObject *args)
{
    struct delimited *how;
    const char *delimiter;
    Py_ssize_t size, frame_max;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#n:delimited", &delimiter, &size, &frame_max))
        return NULL;
    how = PyMem_Calloc(1, sizeof *how + (size_t)size);
    if (how == NULL)
        return PyErr_NoMemory();
    how->frame_max = (size_t)frame_max;
    how->size = (size_t)size;
    memcpy(how->delimiter, delimiter, (size_t)size);
    return capsule_of(&how->framer, cut_delimited);
}

/* length_prefixed(size, is_little, frame_max) -> capsule; size 0: all of frame_max. */
PyObject *frames_length_prefixed(PyObject *module, PyObject *args)
{
    struct prefixed *how;
    Py_ssize_t size, frame_max;
    int is_little;

    (void)module;
    if (!PyArg_ParseTuple(args, "npn:length_prefixed", &size, &is_little, &frame_max))
        return NULL;
    how = PyMem_Calloc(1, sizeof *how);
    if (how == NULL)
        return PyErr_NoMemory();
    how->frame_max = (uint64_t)frame_max;
    how->size = (size_t)size;
    how->is_little = is_little != 0;
    return capsule_of(&how->framer, cut_prefixed);
}

int frames_set_framer(PyObject *self, PyObject *value, void *unused)
{
    struct delivered *stream = (struct delivered *)self;
    const struct fdmux_framer *framer;
    PyObject *old = stream->framer;

    (void)unused;
    framer = value == NULL ? NULL : PyCapsule_GetPointer(value, NAME);
    if (framer == NULL)
        return -1;
    if (framer->struct_size != sizeof *framer || framer->cut == NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "a framer of another version of fdmux_frame.h, or without cut");
        return -1;
    }
    if (stream->delivery == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a framer is for a stream that is bound");
        return -1;
    }
    if (stream->delivery->frame == NULL)
        stream->delivery->frame = PyMem_Calloc(1, sizeof *stream->delivery->frame);
    if (stream->delivery->frame == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stream->framer = delivery_new_ref(value);
    Py_XDECREF(old);
    return 0;
}
